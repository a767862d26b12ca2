"""Move all messages from one queue to another.

A message is acknowledged in its source after RabbitMQ has confirmed it in the target. So at any
moment it is in at least one of the two queues.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from shared.errors import UpgradeError
from shared.rabbitmq.message import Message
from shared.rabbitmq.reader import Reader
from shared.rabbitmq.session import Session
from workers.admin.upgrade.calls import counts

WINDOW: Final = 200
"""Dead letters that are moved together; the session's prefetch."""

QUIET_LIMIT: Final = 0.5
"""Seconds without a message until RabbitMQ is asked whether the queue is empty."""

CONFIRM_LIMIT: Final = 30.0
"""Seconds that RabbitMQ may take to confirm a window."""

OTHERS_LIMIT: Final = 60.0
"""Seconds to wait until other consumers of the queue stop."""

REPORT_INTERVAL: Final = 10_000
"""Moved dead letters between two reports."""

_ADDED_BY_RABBITMQ: Final = ("x-delivery-count", "x-acquired-count")
"""Headers that RabbitMQ adds to a message that it delivers again."""


async def move_all(session: Session, source: str, target: str, say: Callable[[str], None]) -> int:
    """Move all messages; return their number when the source is empty and has no consumer.

    Args:
        session: with a prefetch of `WINDOW`.
        say: prints a line of progress.

    Raises:
        BrokerUnavailableError, PublishOutcomeUnknownError: RabbitMQ went away.
        UpgradeError: the target rejected a message, or another consumer keeps the source.
    """
    moved = 0
    loop = asyncio.get_running_loop()
    deadline = loop.time() + OTHERS_LIMIT
    while True:
        reader = Reader(session, source)
        await reader.start()
        while window := await _window(reader, QUIET_LIMIT):
            await _move(session, reader, window, target)
            moved += len(window)
            if moved % REPORT_INTERVAL < len(window):
                say(f"{moved} dead letters moved to {target} so far")
            deadline = loop.time() + OTHERS_LIMIT
        await reader.stop()
        while window := await _window(reader, 0.0):  # delivered before the reader stopped
            await _move(session, reader, window, target)
            moved += len(window)
        ready, consumers = await counts(session, source) or (0, 0)
        if not ready and not consumers:
            return moved
        if loop.time() >= deadline:
            raise UpgradeError(
                f"another process consumes {source} and may hold dead letters; end it (perhaps an"
                " mms-admin of an earlier release) and run the upgrade again; nothing is lost"
            )


async def _window(reader: Reader, limit: float) -> list[DeliveredMessage]:
    """The next messages; none when none arrives within `limit` seconds."""
    window: list[DeliveredMessage] = []
    while len(window) < WINDOW and (message := await reader.next(0.0 if window else limit)):
        window.append(message)
    return window


async def _move(
    session: Session, reader: Reader, window: Sequence[DeliveredMessage], target: str
) -> None:
    for part in _with_unique_ids(window):
        messages = [
            Message(each.body, "", target, _as_published(each.header.properties)) for each in part
        ]
        for result in await session.publish_all(messages, CONFIRM_LIMIT):
            if result is not None:
                raise UpgradeError(
                    f"{target} rejected a dead letter ({result}); run the upgrade again; nothing is"
                    " lost"
                )
    await reader.acknowledge(window[-1], multiple=True)


def _with_unique_ids(window: Sequence[DeliveredMessage]) -> list[list[DeliveredMessage]]:
    """The messages in parts: `publish_all` allows each message id once."""
    parts: list[list[DeliveredMessage]] = [[]]
    ids: set[str] = set()
    for each in window:
        message_id = each.header.properties.message_id
        if message_id and message_id in ids:
            parts.append([])
            ids = set()
        ids.add(message_id or "")
        parts[-1].append(each)
    return parts


def _as_published(properties: Basic.Properties) -> Basic.Properties:
    """The properties without the headers that RabbitMQ has added."""
    for name in _ADDED_BY_RABBITMQ:
        (properties.headers or {}).pop(name, None)
    return properties
