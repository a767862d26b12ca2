"""The archive of all batches, read from somewhere up to its end as it was at the start.

A stream has no end: whoever reads it is led on into what comes live. Nor can the end be asked for
(RabbitMQ's message count is an estimate). But a consumer that begins at `last` is given the last
chunk, and RabbitMQ has sent all of it once it answers a later question on the same channel. So the
highest offset that has come by then is the end, or, with traffic, a little beyond: too far does no
harm. That nothing came is no proof that nothing is there, however long one waits: see `_nothing`.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Final

from aiormq.abc import DeliveredMessage

from shared.errors import BrokerUnavailableError
from shared.rabbitmq import topology
from shared.rabbitmq.session import Session, connection_errors
from shared.settings.settings import Settings
from workers.admin.stream import CALL_LIMIT, Place, Reader, offset_of, open_reading

PREFETCH: Final = 64
"""Batches that may wait here; each has at most 1 MiB."""

LOOK_LIMIT: Final = 2.0
"""Seconds at most that the last chunk is looked at while messages keep coming."""

EMPTY_LIMIT: Final = 2.0
READ_LIMIT: Final = 30.0
"""Seconds to wait for a message: before an archive counts as empty, and in the middle of one."""


async def opened(settings: Settings, prefetch: int = PREFETCH) -> Session:
    """A session to read the archive on.

    Raises:
        BrokerUnavailableError: RabbitMQ cannot be reached or has no archive.
    """
    return await open_reading(
        settings, topology.POSTBACKS, topology.ARCHIVE, name="mms-admin rebuild", prefetch=prefetch
    )


async def end(settings: Settings) -> int | None:
    """The offset of the archive's last message; None when there is none.

    Raises:
        BrokerUnavailableError: RabbitMQ cannot be reached or does not give what it says it has.
    """
    session = await opened(settings, prefetch=1000)
    try:
        counted = await _count(session)
        reader = Reader(session, topology.ARCHIVE)
        await reader.start("last")
        first = await reader.next(READ_LIMIT if counted else EMPTY_LIMIT)
        if first is None:
            if counted:
                raise BrokerUnavailableError(f"{topology.ARCHIVE} has messages but gives none")
            return None
        deadline = time.monotonic() + LOOK_LIMIT
        message: DeliveredMessage | None = first
        highest = 0
        while message is not None:
            highest = max(highest, offset_of(message))
            await reader.acknowledge(message)
            if not reader.waiting and time.monotonic() < deadline:
                await _count(session)  # answered after what was being sent
            message = await reader.next(0.0)
        return highest
    finally:
        await session.close()


async def messages(
    session: Session, place: Place, last: int
) -> AsyncGenerator[DeliveredMessage, None]:
    """The archive's messages from a place up to the offset `last`.

    Args:
        session: from `opened`.

    Raises:
        BrokerUnavailableError: the connection was lost, or the stream gives nothing any more.
    """
    reader = Reader(session, topology.ARCHIVE)
    await reader.start(place)
    if place != "first" and await _nothing(session, reader, last):
        return
    message = await reader.next(READ_LIMIT)
    while message is not None:
        offset = offset_of(message)
        await reader.acknowledge(message)  # taken; asks for one more
        if offset <= last:
            yield message
        if offset >= last:
            return
        message = await reader.next(READ_LIMIT)
    raise BrokerUnavailableError(f"{topology.ARCHIVE} gave nothing for {READ_LIMIT:g} s")


async def _nothing(session: Session, reader: Reader, last: int) -> bool:
    """Whether nothing was archived since the place that this reader began at.

    A second consumer on the same channel begins at the archive's last message, which is there. Its
    stream serves both in the order in which they came, so once that message has come, something has
    come to the first reader too, if there is anything for it.
    """
    proof = Reader(session, topology.ARCHIVE)
    await proof.start(last)
    if await proof.next(READ_LIMIT) is None:
        raise BrokerUnavailableError(f"{topology.ARCHIVE} gave nothing for {READ_LIMIT:g} s")
    await proof.stop()  # and what RabbitMQ was sending to the reader has come
    return not reader.waiting


async def _count(session: Session) -> int:
    with connection_errors(f"cannot ask for {topology.ARCHIVE}"):
        async with asyncio.timeout(CALL_LIMIT):
            answer = await session.channel.queue_declare(topology.ARCHIVE, passive=True)
    return answer.message_count or 0
