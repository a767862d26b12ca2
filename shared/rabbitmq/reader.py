"""Read a queue or a stream of RabbitMQ message by message; a lost connection is always noticed.

A stream sends a consumer everything from the offset it asks for, then what is published live. A
stream keeps what is read; an acknowledgement only asks for more, so that at most `prefetch`
messages wait in memory.
"""

import asyncio
from collections import deque
from datetime import datetime
from typing import Final

from aiormq.abc import DeliveredMessage

from shared.errors import BrokerUnavailableError
from shared.rabbitmq import topology
from shared.rabbitmq.errors import connection_errors
from shared.rabbitmq.session import Session, open_session
from shared.settings.settings import Settings

CALL_LIMIT: Final = 5.0
"""Seconds that RabbitMQ may take to answer one call."""

CHECK_INTERVAL: Final = 1.0
"""Seconds without a message after which the connection is checked."""

StreamOffset = int | str | datetime
"""Where in a stream to begin: an offset, `first`, `last` (chunk), `next`, or a time in UTC.

A time means the chunk that was written then: it may begin with a few older messages.
"""


async def open_for_reading(
    settings: Settings, exchange: str, queue: str, *, name: str, prefetch: int
) -> Session:
    """A session for a command that only reads: it declares nothing.

    Args:
        exchange, queue: must exist, see `topology.require`.
        name: shown in RabbitMQ's list of connections.
        prefetch: messages that may wait in memory.

    Raises:
        BrokerUnavailableError: RabbitMQ cannot be reached, or has no such exchange or queue.
        TopologyConflictError: see `topology.require`.
    """
    session = await open_session(settings, name=name, prefetch=prefetch, declaring=False)
    try:
        with connection_errors():
            await topology.require(session.connection, settings, exchange, queue)
    except BaseException:
        await session.close()
        raise
    return session


class Reader:
    """Consumes one queue or stream on a session that was opened with a prefetch."""

    def __init__(self, session: Session, queue: str) -> None:
        self._session = session
        self._queue = queue
        self._received: deque[DeliveredMessage] = deque()
        self._arrived = asyncio.Event()
        self._tag = ""

    async def start(self, offset: StreamOffset | None = None) -> None:
        """Start to consume.

        Args:
            offset: where to begin; for streams only.

        Raises:
            BrokerUnavailableError: RabbitMQ did not answer or has no such queue.
        """
        with connection_errors(f"cannot consume {self._queue}"):
            async with asyncio.timeout(CALL_LIMIT):
                answer = await self._session.channel.basic_consume(
                    self._queue,
                    self._receive,
                    arguments=None if offset is None else {"x-stream-offset": offset},
                )
        self._tag = str(answer.consumer_tag)

    async def stop(self) -> None:
        """Stop consuming; the channel keeps unacknowledged messages until it is closed.

        Raises:
            BrokerUnavailableError: RabbitMQ did not answer.
        """
        with connection_errors(f"cannot stop reading {self._queue}"):
            async with asyncio.timeout(CALL_LIMIT):
                await self._session.channel.basic_cancel(self._tag)

    async def next(self, limit: float) -> DeliveredMessage | None:
        """The next message, or None when none came within `limit` seconds.

        Raises:
            BrokerUnavailableError: the connection is lost or RabbitMQ has cancelled the consumer.
        """
        deadline = asyncio.get_running_loop().time() + limit
        while not self._received:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return None
            self._arrived.clear()
            try:
                async with asyncio.timeout(min(left, CHECK_INTERVAL)):
                    await self._arrived.wait()
            except TimeoutError:
                self._check()
        return self._received.popleft()

    @property
    def waiting(self) -> int:
        """Messages that have arrived and that `next` has not returned."""
        return len(self._received)

    async def acknowledge(self, message: DeliveredMessage, *, multiple: bool = False) -> None:
        """Acknowledge this message, with `multiple` also all messages before it.

        Raises:
            BrokerUnavailableError: the session is lost.
        """
        tag = message.delivery_tag or 0
        with connection_errors("cannot acknowledge"):
            await self._session.channel.basic_ack(tag, multiple=multiple, wait=False)

    async def requeue(self, tag: int = 0) -> None:
        """Return one message to its queue, or all unacknowledged ones; call `stop` first.

        Args:
            tag: the message's delivery tag; 0: all.

        Raises:
            BrokerUnavailableError: the session is lost; RabbitMQ requeues the messages then.
        """
        with connection_errors("cannot requeue"):
            await self._session.channel.basic_nack(tag, multiple=not tag, requeue=True, wait=False)

    def _check(self) -> None:
        if not self._session.consumes(self._tag):
            raise BrokerUnavailableError("the connection to RabbitMQ was lost")

    async def _receive(self, message: DeliveredMessage) -> None:
        self._received.append(message)
        self._arrived.set()


def offset_of(message: DeliveredMessage) -> int:
    """A message's offset in its stream; -1 for a message of a queue."""
    found = (message.header.properties.headers or {}).get("x-stream-offset")
    return found if isinstance(found, int) else -1
