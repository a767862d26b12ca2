"""Prints each event and each dead letter in one line; an example of a subscriber.

Its queues are exclusive: RabbitMQ deletes them when the connection ends. Other subscribers still
get every event.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

import msgspec
from aio_pika.abc import AbstractIncomingMessage

from shared.log import mask
from shared.postback.dead_letter import decode_dead_letter
from shared.postback.event import Event, decode_event
from shared.postback.passthrough import PassthroughEvent, decode_passthrough
from shared.printable import printable
from shared.rabbitmq import topology
from shared.rabbitmq.errors import connection_errors
from shared.rabbitmq.reconnect import Sessions
from shared.rabbitmq.session import Session, open_session
from shared.settings.settings import Settings

MAX_WAITING_EVENTS: Final = 10_000
"""Events that may wait for a slow terminal; beyond it the oldest are dropped."""

Say = Callable[[str], None]


async def watch(settings: Settings, say: Say, watching: asyncio.Event) -> None:
    """Print each event and each dead letter from now on, for ever; reconnect when necessary.

    Args:
        say: prints a line.
        watching: set when the subscriptions exist: every later event is printed.
    """
    sessions = Sessions(
        lambda: open_session(settings, name="make run"), report=lambda _problem: None
    )
    while True:
        async with sessions.next() as session:
            with connection_errors():
                await _subscribe(
                    session, topology.EVENTS, "#", lambda message: say(_event(message))
                )
                await _subscribe(session, topology.DEAD, "", lambda message: say(_dead(message)))
            watching.set()
            await session.lost(within=None)


async def _subscribe(
    session: Session,
    exchange: str,
    routing_key: str,
    handle: Callable[[AbstractIncomingMessage], None],
) -> None:
    async def handle_soon(message: AbstractIncomingMessage) -> None:
        handle(message)

    channel = await session.connection.channel()
    queue = await channel.declare_queue(
        exclusive=True, arguments={"x-max-length": MAX_WAITING_EVENTS}
    )
    await queue.bind(exchange, routing_key)
    await queue.consume(handle_soon, no_ack=True)


def _event(message: AbstractIncomingMessage) -> str:
    try:
        return event_line(decode_event(message.body))
    except msgspec.DecodeError as error:
        with contextlib.suppress(msgspec.DecodeError):
            return _passthrough_line(decode_passthrough(message.body))
        return printable(f"{_clock()}  an event that cannot be read: {error}")


def event_line(event: Event) -> str:
    """One event in one line; of a phone number only the last digits."""
    known = event.data
    parts = [
        _clock(),
        f"{event.type.removeprefix('mms.'):<20}",
        f"{event.subject:<24}",
        f"{known.operator_name or known.operator_id or '-':<16}",
        f"to {mask(known.to or '-'):<5}",
        known.handset or "",
        f"(corrects {known.corrects})" if known.corrects else "",
    ]
    return printable("  ".join(part for part in parts if part).rstrip())


def _passthrough_line(event: PassthroughEvent) -> str:
    kind = event.type.removeprefix("mms.")
    return printable(f"{_clock()}  {kind:<20}  {mask(event.subject or '-')}")


def _dead(message: AbstractIncomingMessage) -> str:
    reason = decode_dead_letter(message.body, message.properties).reason
    return printable(f"{_clock()}  {'dead letter':<20}  {reason}")


def _clock() -> str:
    return time.strftime("%H:%M:%S")
