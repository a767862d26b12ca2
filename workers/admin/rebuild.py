"""`mms-admin rebuild`: replay the archive into Redis, with live traffic or into an empty Redis.

Merging is idempotent and independent of order. So replaying the archive gives the records that were
there, whatever Redis holds now and whatever else writes to it. Nothing is published without
`--emit`, which is for batches that reached only the archive.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from datetime import datetime

import click
from aiormq.abc import DeliveredMessage
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from shared.process import cli
from shared.rabbitmq.reader import StreamOffset, offset_of
from shared.settings.load import load_settings
from shared.settings.settings import Settings
from workers.admin import archive, console
from workers.admin.restore import EventPublisher, Restorer, Summary
from workers.admin.unpublished import Span, Unpublished
from workers.store import Store


@click.command()
@click.option(
    "--since", type=console.Since(), help="Start there: 90s, 30m, 1h, 7d or an ISO 8601 time."
)
@click.option("--dry-run", is_flag=True, help="Read and count; do not use Redis.")
@click.option("--emit", "emitting", is_flag=True, help="Also publish the events of changes.")
@console.json_option
def rebuild(since: datetime | None, *, dry_run: bool, emitting: bool, as_json: bool) -> None:
    """Replay the archive of all batches into Redis.

    Use it when Redis lost its last writes, or everything. Afterwards every record is what it was.
    It can run with live traffic and workers, and can be stopped or run again at any time. It ends
    at the batch that was the last of the archive when it started. --since means the time when a
    batch reached RabbitMQ, which may be later than the time when it was received.

    --emit is for batches that reached only the archive. It publishes the events of what it changes,
    and a dead letter for each postback that cannot be decoded. With an empty Redis that is every
    event of the whole archive. The archive may be longer than records are kept: events of postbacks
    that are older than MMS_STATE_TTL are published only with --since. Postbacks of other origins
    and postbacks that cannot be decoded have no record. So every run publishes them again, also
    dead letters that were replayed or purged. If a run is killed, or Redis or RabbitMQ stays away
    for a minute, some events may be unpublished. The next run with --emit publishes them first. It
    may publish some events again, with the same ids.

    Exit status 1 when it was stopped, or when Redis refused some records.

    \b
    Examples:
      mms-admin rebuild
      mms-admin rebuild --since 2h
      mms-admin rebuild --since 30m --emit
    """  # noqa: D301 (click reads the backslash)
    summary = console.run(_rebuild(since, dry_run=dry_run, emitting=emitting))
    if as_json:
        console.print_json(summary)
    else:
        rows = [
            (name.replace("_", " "), _shown(getattr(summary, name)))
            for name in summary.__struct_fields__
        ]
        console.print_table("rebuild", ["", ""], rows)
    if not summary.finished:
        console.say("Stopped before the end of the archive; run it again.")
    if summary.refused or not summary.finished:
        raise SystemExit(1)


async def _rebuild(since: datetime | None, *, dry_run: bool, emitting: bool) -> Summary:
    stop = cli.stop_event()
    loaded = load_settings()
    summary = Summary(dry_run=dry_run)
    began = time.monotonic()
    last = await archive.last_offset(loaded)
    if last is None:
        summary.finished = True
    else:
        await _replay(loaded, summary, since or "first", last, stop, emitting=emitting)
    summary.seconds = round(time.monotonic() - began, 3)
    summary.postbacks_per_second = round(summary.postbacks / max(summary.seconds, 0.001))
    return summary


async def _replay(
    loaded: Settings,
    summary: Summary,
    place: StreamOffset,
    last: int,
    stop: asyncio.Event,
    *,
    emitting: bool,
) -> None:
    async with (
        contextlib.aclosing(Store(loaded)) as store,
        contextlib.aclosing(EventPublisher(loaded)) as publisher,
        contextlib.aclosing(Unpublished(loaded)) as unpublished,
    ):
        if not summary.dry_run:
            await store.check_version()
        emitting = emitting and not summary.dry_run
        if emitting:
            for noted, span in (await unpublished.found()).items():
                if span.last <= last:  # else the archive was deleted and declared again
                    await _publish_again(loaded, summary, store, publisher, span)
                await unpublished.forget(noted)
        earliest = 0 if place != "first" else time.time_ns() // 1000 - round(loaded.state_ttl * 1e6)
        restorer = Restorer(
            store,
            summary,
            publisher if emitting else None,
            earliest,
            unpublished=unpublished if emitting else None,
        )
        summary.finished = await _read(loaded, restorer, place, last, stop)
        if emitting:
            await unpublished.done()


async def _publish_again(
    loaded: Settings, summary: Summary, store: Store, publisher: EventPublisher, span: Span
) -> None:
    """Publish the events of a window that an earlier run merged and may not have published."""
    counts = Summary()
    restorer = Restorer(store, counts, publisher, span.earliest, again=True)
    await _read(loaded, restorer, span.first, span.last, asyncio.Event())
    summary.events += counts.events
    summary.dead_letters += counts.dead_letters


async def _read(
    loaded: Settings, restorer: Restorer, place: StreamOffset, last: int, stop: asyncio.Event
) -> bool:
    """Restore the archive from a place to `last`; False when it was stopped before."""
    session = await archive.open_archive(loaded)
    try:
        async with contextlib.aclosing(archive.messages(session, place, last)) as messages:
            finished = await _each(restorer, messages, last, stop)
        await restorer.flush()
        return finished
    finally:
        await session.close()


async def _each(
    restorer: Restorer,
    messages: AsyncGenerator[DeliveredMessage, None],
    last: int,
    stop: asyncio.Event,
) -> bool:
    with _progress() as progress:
        bar = progress.add_task("archive", total=None)
        async for message in messages:
            if progress.tasks[bar].total is None:
                progress.update(bar, total=last - offset_of(message) + 1)
            await restorer.take(message.body, offset_of(message))
            progress.advance(bar)
            if stop.is_set():
                return False
    return True


def _progress() -> Progress:
    """A progress bar on standard error; none when that is no terminal."""
    errors = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} batches"),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    )


def _shown(value: float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}"
