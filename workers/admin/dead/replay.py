"""`mms-admin dead replay`: publish dead letters to the input again, and remove those that arrived.

Each postback becomes a batch of its own, so a postback that kills workers affects no other. The
postbacks of a dead letter are confirmed by RabbitMQ before it is removed. So an interrupted replay
leaves each dead letter in `mms.dead`, in the input, or in both; a duplicate is harmless. A postback
that this release cannot decode stays in `mms.dead`.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Final

import click
from pamqp.commands import Basic

from shared.errors import OtherOriginError, UndecodableError
from shared.postback import envelope
from shared.postback.dead_letter import DeadLetter
from shared.postback.envelope import Arrival
from shared.postback.normalise import decode
from shared.rabbitmq import topology
from shared.rabbitmq.session import Session
from shared.settings.load import load_settings
from workers.admin import console
from workers.admin.dead.browse import Browser, Held, browse
from workers.admin.dead.filter import Filter, filtered

REPLAY_WINDOW: Final = 200
"""Postbacks that are published at the same time, if one batch does not hold more."""

PUBLISH_LIMIT: Final = 10.0
"""Seconds to wait for the confirm of one postback."""

Tally = Counter[tuple[str, str]]
"""The number of postbacks by reason and by result."""


@click.command()
@filtered
@click.option("--dry-run", is_flag=True, help="Only print what would be done.")
@console.json_option
def replay(wanted: Filter, *, dry_run: bool, as_json: bool) -> None:
    """Publish dead letters to the input again.

    Without options all dead letters are replayed. Postbacks keep their source, content type and
    time of arrival. A dead letter that this release still cannot decode stays in mms.dead. A batch
    that no worker could finish is split first; its postbacks are published one by one, and only a
    dry run decodes them. An interrupted replay loses nothing: run it again.

    \b
    Examples:
      mms-admin dead replay --dry-run
      mms-admin dead replay --reason unknown-code
      mms-admin dead replay --id 3f9a0c1b2d4e
    """  # noqa: D301 (click reads the backslash)
    tally: Tally = Counter()
    try:
        console.run(_replay(wanted, tally, dry_run=dry_run))
    except BaseException:
        if tally:
            _print(tally, dry_run=dry_run, as_json=as_json)
        raise
    _print(tally, dry_run=dry_run, as_json=as_json)
    if wanted.id is not None and not tally:
        console.say(f"There is no dead letter {wanted.id}.")
        raise SystemExit(1)


async def _replay(wanted: Filter, tally: Tally, *, dry_run: bool) -> None:
    async with browse(load_settings()) as browser:
        window: list[Held] = []
        async for held in browser.dead_letters():
            dead_letter = held.dead_letter
            if not wanted.matches(dead_letter):
                continue
            if dry_run:
                tally.update(_prospect(dead_letter))
            elif (kept := _why_kept(dead_letter)) is not None:
                tally[dead_letter.reason, kept] += 1
            else:
                window.append(held)
            if sum(max(1, len(each.dead_letter.arrivals)) for each in window) >= REPLAY_WINDOW:
                await _send(browser, window, tally)
                window = []
        await _send(browser, window, tally)


async def _send(browser: Browser, window: Sequence[Held], tally: Tally) -> None:
    async with asyncio.TaskGroup() as sending:
        for held in window:
            sending.create_task(_send_one(browser, held, tally))


async def _send_one(browser: Browser, held: Held, tally: Tally) -> None:
    arrivals = held.dead_letter.arrivals
    async with asyncio.TaskGroup() as publishing:
        for arrival in arrivals:
            publishing.create_task(_publish(browser.session, arrival))
    await browser.remove(held)
    tally[held.dead_letter.reason, "replayed"] += len(arrivals)


async def _publish(session: Session, arrival: Arrival) -> None:
    await session.publish(
        envelope.encode([arrival]),
        exchange=topology.POSTBACKS,
        properties=Basic.Properties(content_type=envelope.CONTENT_TYPE),
        limit=PUBLISH_LIMIT,
    )


def _why_kept(dead_letter: DeadLetter) -> str | None:
    """Why a dead letter is not replayed; None when it is.

    The postbacks of a batch are not decoded here: decoding one may have killed the workers.
    """
    if dead_letter.is_batch:
        return None
    if not dead_letter.arrivals:
        return "kept: it is not a batch of postbacks"
    meaning, decodes = _meaning(dead_letter.arrivals[0])
    return None if decodes else f"kept: {meaning}"


def _prospect(dead_letter: DeadLetter) -> Tally:
    """What a replay would do with each postback of a dead letter."""
    if not dead_letter.arrivals and not dead_letter.is_batch:
        return Counter({(dead_letter.reason, str(_why_kept(dead_letter))): 1})
    results: Tally = Counter()
    refused = "would become a dead letter of its own" if dead_letter.is_batch else "would be kept"
    for arrival in dead_letter.arrivals:
        meaning, decodes = _meaning(arrival)
        result = f"would be {meaning}" if decodes else f"{refused}: {meaning}"
        results[dead_letter.reason, result] += 1
    return results


def _meaning(arrival: Arrival) -> tuple[str, bool]:
    """What this release decodes a postback to, and whether it can decode it."""
    try:
        normalised = decode(arrival.source, arrival.body)
    except OtherOriginError:
        return "passed on as an event", True
    except UndecodableError as error:
        return f"still {error.reason}", False
    return f"{normalised.track} {normalised.postback.outcome}", True


def _print(tally: Tally, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        for (reason, result), count in sorted(tally.items()):
            console.print_json({"reason": reason, "result": result, "postbacks": count})
        return
    console.print_table(
        "dry run, nothing was published" if dry_run else "replay",
        ["reason", "result", "postbacks"],
        [[reason, result, str(count)] for (reason, result), count in sorted(tally.items())],
    )
