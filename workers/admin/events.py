"""`mms-admin events`: follow events, from now on or from a time in the past."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Final

import click
import msgspec
from aiormq.abc import DeliveredMessage

from shared.log import mask
from shared.postback.event import Event, decode_event
from shared.postback.passthrough import PassthroughEvent, decode_passthrough
from shared.rabbitmq import topology
from shared.rabbitmq.errors import connection_errors
from shared.rabbitmq.reader import CALL_LIMIT, Reader, StreamOffset, offset_of, open_for_reading
from shared.rabbitmq.reconnect import Sessions
from shared.rabbitmq.session import Session
from shared.settings.load import load_settings
from shared.settings.settings import Settings
from workers.admin import console
from workers.admin.topic import matches

NAME: Final = "mms-admin events"
PREFETCH: Final = 200
QUEUE_LIMIT: Final = 10_000
"""Events that may wait in RabbitMQ for a slow terminal; beyond it the oldest are dropped."""

_NEXT_LIMIT: Final = 3600.0
"""Seconds of one wait for the next event; another wait follows."""


@click.command()
@click.option(
    "--filter", "pattern", default="#", help="Routing keys to show; * is one word, # any number."
)
@click.option(
    "--since",
    type=console.Since(),
    help="Start in the past: 90s, 30m, 1h, 7d ago, or an ISO 8601 time.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Stop after this many events.")
@console.json_option
@console.raw_option
def events(
    pattern: str, since: datetime | None, limit: int | None, *, as_json: bool, raw: bool
) -> None:
    """Print events as they are published, until Ctrl-C.

    A routing key is <track>.<outcome>.<operator-id>, with "unknown" for an unknown operator, or
    passthrough.<origin>.<code> for postbacks of other origins. With --since the command first
    reads the events since then from the event log; the time is that of publishing. When RabbitMQ
    becomes unavailable, the command waits for it. Then it continues at the same place with
    --since. Without --since it prints since when events were missed.

    \b
    Examples:
      mms-admin events
      mms-admin events --filter 'message.failed.#'
      mms-admin events --filter '*.*.31003' --since 1h
      mms-admin events --since 1d --json --limit 1000 | jq -r .subject
    """  # noqa: D301 (click reads the backslash)
    try:
        console.run(_follow(pattern.removeprefix("mms."), since, limit, as_json=as_json, raw=raw))
    except KeyboardInterrupt:
        return


async def _follow(
    pattern: str, since: datetime | None, limit: int | None, *, as_json: bool, raw: bool
) -> None:
    remaining = limit
    async with contextlib.aclosing(_messages(load_settings(), pattern, since)) as messages:
        async for message in messages:
            try:
                event = _read(message.body)
            except msgspec.DecodeError as error:
                console.say(f"skipped a message that is not an event: {mask(str(error))}")
                continue
            # The message's own key may be empty: it is when a subscriber refused the event.
            if not matches(pattern, event.routing_key):
                continue
            _print(event if raw else _masked(event), as_json=as_json)
            if remaining is not None:
                remaining -= 1
                if remaining == 0:
                    return


async def _messages(
    loaded: Settings, pattern: str, since: datetime | None
) -> AsyncGenerator[DeliveredMessage, None]:
    """All messages, without an end; a lost session is opened again.

    Raises:
        BrokerUnavailableError: RabbitMQ cannot be reached at the start.
    """
    first = await _open_session(loaded)
    outage = _Outage(log=since is not None)
    sessions = Sessions(lambda: _open_session(loaded), outage.report, first=first)
    offset: StreamOffset | None = since
    while True:
        async with sessions.next() as session:
            reader = await _start_reader(session, pattern, offset)
            while True:
                message = await reader.next(_NEXT_LIMIT)
                if message is None:
                    continue
                yield message
                if since is not None:
                    offset = offset_of(message) + 1
                await reader.acknowledge(message)


class _Outage:
    """Says when RabbitMQ goes away and when it is back.

    Args:
        log: whether events are read from the log, where none is missed.
    """

    def __init__(self, *, log: bool) -> None:
        self._log = log
        self._since = ""

    def report(self, problem: str | None) -> None:
        if problem is not None and not self._since:
            self._since = console.moment(time.time_ns() // 1000)
            console.say(f"{self._since} {problem}; waiting for it")
        if problem is None and self._since:
            if self._log:
                console.say("connected again; continuing at the same place")
            else:
                console.say(f"connected again; events since {self._since} were missed, see --since")
            self._since = ""


async def _start_reader(session: Session, pattern: str, offset: StreamOffset | None) -> Reader:
    """A reader of the log if there is an offset to start at, else of a queue of our own."""
    if offset is not None:
        reader = Reader(session, topology.EVENT_LOG)
        await reader.start(offset)
        return reader
    channel = session.channel
    with connection_errors(f"cannot bind a queue to {topology.EVENTS}"):
        async with asyncio.timeout(CALL_LIMIT):
            declared = await channel.queue_declare(
                exclusive=True,
                auto_delete=True,
                # A full queue must drop its oldest: if it refused, RabbitMQ would nack the publish.
                arguments={"x-max-length": QUEUE_LIMIT, "x-overflow": "drop-head"},
            )
            queue = str(declared.queue)
            await channel.queue_bind(queue, topology.EVENTS, routing_key=pattern)
    reader = Reader(session, queue)
    await reader.start()
    return reader


async def _open_session(loaded: Settings) -> Session:
    return await open_for_reading(
        loaded, topology.EVENTS, topology.EVENT_LOG, name=NAME, prefetch=PREFETCH
    )


def _read(body: bytes) -> Event | PassthroughEvent:
    try:
        return decode_event(body)
    except msgspec.ValidationError:
        return decode_passthrough(body)


def _masked(event: Event | PassthroughEvent) -> Event | PassthroughEvent:
    if isinstance(event, PassthroughEvent):
        return _masked_passthrough(event)
    data = event.data
    private = msgspec.structs.replace(
        data,
        from_=data.from_ and console.hide_number(data.from_),
        to=data.to and console.hide_number(data.to),
        client_reference=data.client_reference and console.hide(data.client_reference),
        campaign_ref=data.campaign_ref and console.hide(data.campaign_ref),
        status=data.status and console.hide(data.status),
        status_details=data.status_details and console.hide(data.status_details),
    )
    return msgspec.structs.replace(event, data=private)


def _masked_passthrough(event: PassthroughEvent) -> PassthroughEvent:
    """The fields of other origins may contain anything, so each is masked."""
    fields = {name: _masked_value(value) for name, value in event.data.fields.items()}
    return msgspec.structs.replace(event, data=msgspec.structs.replace(event.data, fields=fields))


def _masked_value(value: object) -> object:
    if isinstance(value, dict):
        return {name: _masked_value(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_masked_value(inner) for inner in value]
    masked = mask(str(value))
    return value if masked == str(value) else masked


def _print(event: Event | PassthroughEvent, *, as_json: bool) -> None:
    if as_json:
        console.print_json(event)
        return
    if isinstance(event, PassthroughEvent):
        subject = event.subject or console.NOTHING
        click.echo(console.one_line(f"{event.time:<27} {event.type:<24} {subject}"))
        return
    data = event.data
    corrects = f" corrects {data.corrects}" if data.corrects else ""
    operator = data.operator_name or data.operator_id or console.NOTHING
    route = f"{data.from_ or console.NOTHING}→{data.to or console.NOTHING}"
    columns = f"{event.time:<27} {event.type:<24} {event.subject:<24} {operator:<16}"
    click.echo(console.one_line(f"{columns} {route}{corrects}"))
