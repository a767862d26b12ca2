"""`mms-admin dead replay`: send dead letters through the input again, and remove what arrived.

Each postback becomes a batch of its own, so one that kills workers can only kill itself. A letter
is removed after RabbitMQ has confirmed all its postbacks in the input; stopped at any instant, a
letter is there, or in the input, or in both, and twice is harmless. What today's code still cannot
decode stays where it is: the input would only send it back.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import click
from pamqp.commands import Basic

from shared.errors import OtherOriginError, UndecodableError
from shared.postback import envelope
from shared.postback.envelope import Arrival
from shared.postback.normalise import decode
from shared.rabbitmq import topology
from shared.rabbitmq.session import Session
from shared.settings import settings
from workers.admin import console
from workers.admin.dead.browse import Browser, Held, browse
from workers.admin.dead.entry import Filter, Letter
from workers.admin.dead.options import chosen, filtered

REPLAY_WINDOW: Final = 200
"""Postbacks on their way at the same time, if one batch does not hold more."""

PUBLISH_LIMIT: Final = 10.0

Tally = Counter[tuple[str, str]]
"""How many postbacks, by reason and by what becomes of them."""


@click.command()
@filtered
@click.option("--dry-run", is_flag=True, help="Only say what would become of them.")
@console.json_option
def replay(
    letter_id: str | None,
    reason: str | None,
    source: str | None,
    since: datetime | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Send dead letters through the input again: decoded with today's code.

    Without options all of them. Postbacks keep their source, content type and time of arrival. A
    letter that still cannot be decoded stays a dead letter. A batch that no worker could finish is
    taken apart first, and its postbacks go one by one, undecoded, unless it is a dry run. If this
    is interrupted nothing is lost; run it again.

    \b
    Examples:
      mms-admin dead replay --dry-run
      mms-admin dead replay --reason unknown-code
      mms-admin dead replay --id 3f9a0c1b2d4e
    """  # noqa: D301 (click reads the backslash)
    wanted = chosen(letter_id, reason, source, since)
    tally: Tally = Counter()
    try:
        console.run(_replay(wanted, tally, dry_run=dry_run))
    except BaseException:
        if tally:
            _print(tally, dry_run=dry_run, as_json=as_json)
        raise
    _print(tally, dry_run=dry_run, as_json=as_json)
    if letter_id is not None and not tally:
        console.say(f"There is no dead letter {letter_id}.")
        raise SystemExit(1)


async def _replay(wanted: Filter, tally: Tally, *, dry_run: bool) -> None:
    async with browse(settings.load()) as browser:
        window: list[Held] = []
        async for held in browser.letters():
            if not wanted.takes(held.letter):
                continue
            if dry_run:
                tally.update(_prospect(held.letter))
            elif refusal := _refusal(held.letter):
                tally[held.letter.reason, refusal] += 1
            else:
                window.append(held)
            if sum(max(1, len(each.letter.arrivals)) for each in window) >= REPLAY_WINDOW:
                await _send(browser, window, tally)
                window = []
        await _send(browser, window, tally)


async def _send(browser: Browser, window: Sequence[Held], tally: Tally) -> None:
    async with asyncio.TaskGroup() as sending:
        for held in window:
            sending.create_task(_send_one(browser, held, tally))


async def _send_one(browser: Browser, held: Held, tally: Tally) -> None:
    async with asyncio.TaskGroup() as publishing:
        for arrival in held.letter.arrivals:
            publishing.create_task(_publish(browser.session, arrival))
    await browser.remove(held)
    tally[held.letter.reason, "replayed"] += len(held.letter.arrivals)


async def _publish(session: Session, arrival: Arrival) -> None:
    await session.publish(
        envelope.encode([arrival]),
        exchange=topology.POSTBACKS,
        properties=Basic.Properties(content_type=envelope.CONTENT_TYPE),
        limit=PUBLISH_LIMIT,
    )


def _refusal(letter: Letter) -> str | None:
    """Why a letter is not replayed; None when it is.

    A batch is replayed unread: reading may be what no worker survived.
    """
    if letter.batch:
        return None
    if not letter.arrivals:
        return "kept: it is no batch of postbacks"
    what, decodes = _meaning(letter.arrivals[0])
    return None if decodes else f"kept: {what}"


def _prospect(letter: Letter) -> Tally:
    """What would become of each postback in a letter."""
    if not letter.arrivals and not letter.batch:
        return Counter({(letter.reason, str(_refusal(letter))): 1})
    results: Tally = Counter()
    for arrival in letter.arrivals:
        what, decodes = _meaning(arrival)
        other = "would become a letter of its own" if letter.batch else "would be kept"
        results[letter.reason, f"would be {what}" if decodes else f"{other}: {what}"] += 1
    return results


def _meaning(arrival: Arrival) -> tuple[str, bool]:
    """What today's code makes of a postback, and whether it decodes at all."""
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
        "dry run, nothing was sent" if dry_run else "replay",
        ["reason", "result", "postbacks"],
        [[reason, result, str(count)] for (reason, result), count in sorted(tally.items())],
    )
