"""Read the archive of all batches, up to its end as it was at the start.

A stream has no end for its consumers: they go on with what is published live. RabbitMQ has no call
that returns the last offset (its message count is an estimate). But a consumer that begins at
`last` gets the last chunk, and RabbitMQ has sent all of it before it answers a later call on the
same channel. So the highest offset that has arrived by then is the end, or with traffic a little
beyond it, which does no harm. A consumer that gets nothing proves nothing, however long it waits:
see `_is_empty`.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Final

from aiormq.abc import DeliveredMessage

from shared.errors import BrokerUnavailableError
from shared.rabbitmq import topology
from shared.rabbitmq.errors import connection_errors
from shared.rabbitmq.reader import (
    CALL_LIMIT,
    Reader,
    StreamOffset,
    offset_of,
    open_for_reading,
)
from shared.rabbitmq.session import Session
from shared.settings.settings import Settings

PREFETCH: Final = 64
"""Batches that may wait in memory; each has at most 1 MiB."""

LAST_CHUNK_LIMIT: Final = 2.0
"""Seconds to read the last chunk while messages keep coming."""

EMPTY_LIMIT: Final = 2.0
"""Seconds without a message after which the archive counts as empty."""

READ_LIMIT: Final = 30.0
"""Seconds to wait for a message that must come."""


async def open_archive(settings: Settings, prefetch: int = PREFETCH) -> Session:
    """A session to read the archive on.

    Raises:
        BrokerUnavailableError: RabbitMQ cannot be reached or has no archive.
    """
    return await open_for_reading(
        settings, topology.POSTBACKS, topology.ARCHIVE, name="mms-admin rebuild", prefetch=prefetch
    )


async def last_offset(settings: Settings) -> int | None:
    """The offset of the archive's last message; None when there is no message.

    Raises:
        BrokerUnavailableError: RabbitMQ cannot be reached or does not send what it has counted.
    """
    session = await open_archive(settings, prefetch=1000)
    try:
        counted = await _count(session)
        reader = Reader(session, topology.ARCHIVE)
        await reader.start("last")
        first = await reader.next(READ_LIMIT if counted else EMPTY_LIMIT)
        if first is None:
            if counted:
                raise BrokerUnavailableError(f"{topology.ARCHIVE} has messages but sends none")
            return None
        deadline = time.monotonic() + LAST_CHUNK_LIMIT
        message: DeliveredMessage | None = first
        highest = 0
        while message is not None:
            highest = max(highest, offset_of(message))
            await reader.acknowledge(message)
            if not reader.waiting and time.monotonic() < deadline:
                await _count(session)  # RabbitMQ answers after it has sent the chunk
            message = await reader.next(0.0)
        return highest
    finally:
        await session.close()


async def messages(
    session: Session, start: StreamOffset, last: int
) -> AsyncGenerator[DeliveredMessage, None]:
    """The archive's messages from `start` up to the offset `last`.

    Args:
        session: from `open_archive`.

    Raises:
        BrokerUnavailableError: the connection was lost, or the stream sends nothing any more.
    """
    reader = Reader(session, topology.ARCHIVE)
    await reader.start(start)
    if start != "first" and await _is_empty(session, reader, last):
        return
    message = await reader.next(READ_LIMIT)
    while message is not None:
        offset = offset_of(message)
        await reader.acknowledge(message)  # asks for one more
        if offset <= last:
            yield message
        if offset >= last:
            return
        message = await reader.next(READ_LIMIT)
    raise _silent()


async def _is_empty(session: Session, reader: Reader, last: int) -> bool:
    """Whether nothing was archived since the offset that this reader began at.

    A second consumer on the same channel begins at the archive's last message, which exists.
    RabbitMQ serves both consumers in the order in which they came. So once the second has got that
    message, the first has got one too, if there is any for it.
    """
    second = Reader(session, topology.ARCHIVE)
    await second.start(last)
    if await second.next(READ_LIMIT) is None:
        raise _silent()
    await second.stop()  # whatever RabbitMQ was sending to the first reader arrives before
    return not reader.waiting


def _silent() -> BrokerUnavailableError:
    return BrokerUnavailableError(f"{topology.ARCHIVE} sent nothing for {READ_LIMIT:g} s")


async def _count(session: Session) -> int:
    with connection_errors(f"cannot count the messages of {topology.ARCHIVE}"):
        async with asyncio.timeout(CALL_LIMIT):
            answer = await session.channel.queue_declare(topology.ARCHIVE, passive=True)
    return answer.message_count or 0
