"""Read a queue or a RabbitMQ stream message by message, without ever hanging unnoticed.

A stream gives a consumer everything from the place it asks for, then what comes live. It keeps
what is read; acknowledging only asks for more, so that at most `prefetch` messages wait here.
"""

import asyncio
from collections import deque
from datetime import datetime
from typing import Final

from aiormq.abc import DeliveredMessage

from shared.errors import BrokerUnavailableError
from shared.rabbitmq import topology
from shared.rabbitmq.session import Session, connection_errors, open_session
from shared.settings.settings import Settings

CALL_LIMIT: Final = 5.0
"""Seconds that RabbitMQ may take to answer one call."""

CHECK_EVERY: Final = 1.0
"""Seconds without a message after which the connection is looked at."""

Place = int | str | datetime
"""Where in a stream to begin: an offset, `first`, `last` (chunk), `next`, or a time in UTC.

A time means the chunk that was being written then: a few messages from before it may come too.
"""


async def open_reading(
    settings: Settings, exchange: str, queue: str, *, name: str, prefetch: int
) -> Session:
    """A session for a command that only reads: it declares nothing.

    Args:
        exchange, queue: must be there, see `topology.require`.
        name: shown in RabbitMQ's own list of connections.
        prefetch: messages that may wait here.

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
        self._waiting: deque[DeliveredMessage] = deque()
        self._arrived = asyncio.Event()
        self._tag = ""

    async def start(self, place: Place | None = None) -> None:
        """Begin to consume.

        Args:
            place: where to begin; for streams only.

        Raises:
            BrokerUnavailableError: RabbitMQ did not answer or has no such queue.
        """
        with connection_errors(f"cannot consume {self._queue}"):
            async with asyncio.timeout(CALL_LIMIT):
                answer = await self._session.channel.basic_consume(
                    self._queue,
                    self._take,
                    arguments=None if place is None else {"x-stream-offset": place},
                )
        self._tag = str(answer.consumer_tag)

    async def stop(self) -> None:
        """Consume no more; what was not acknowledged stays with the channel until it is closed.

        Raises:
            BrokerUnavailableError: RabbitMQ did not answer.
        """
        with connection_errors(f"cannot stop reading {self._queue}"):
            async with asyncio.timeout(CALL_LIMIT):
                await self._session.channel.basic_cancel(self._tag)

    async def next(self, limit: float) -> DeliveredMessage | None:
        """The next message, or None when none came within `limit` seconds.

        Raises:
            BrokerUnavailableError: the connection or the consumer is gone.
        """
        deadline = asyncio.get_running_loop().time() + limit
        while not self._waiting:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return None
            self._arrived.clear()
            try:
                async with asyncio.timeout(min(left, CHECK_EVERY)):
                    await self._arrived.wait()
            except TimeoutError:
                self._check()
        return self._waiting.popleft()

    @property
    def waiting(self) -> int:
        """Messages that have come and were not asked for yet."""
        return len(self._waiting)

    async def acknowledge(self, message: DeliveredMessage, *, multiple: bool = False) -> None:
        """Done with this message, with `multiple` also with all before it.

        Raises:
            BrokerUnavailableError: the session is no more.
        """
        tag = message.delivery_tag or 0
        with connection_errors("cannot acknowledge"):
            await self._session.channel.basic_ack(tag, multiple=multiple, wait=False)

    async def give_back(self, tag: int = 0) -> None:
        """Return a message to its queue, or whatever is not acknowledged; stop reading first.

        Args:
            tag: the message's delivery tag; 0: all.

        Raises:
            BrokerUnavailableError: the session is no more, so it is returned all the same.
        """
        with connection_errors("cannot give back"):
            await self._session.channel.basic_nack(tag, multiple=not tag, requeue=True, wait=False)

    def _check(self) -> None:
        if not self._session.open or self._tag not in self._session.channel.consumers:
            raise BrokerUnavailableError("the connection to RabbitMQ was lost")

    async def _take(self, message: DeliveredMessage) -> None:
        self._waiting.append(message)
        self._arrived.set()


def offset_of(message: DeliveredMessage) -> int:
    """A message's place in its stream; -1 when it comes from no stream."""
    found = (message.header.properties.headers or {}).get("x-stream-offset")
    return found if isinstance(found, int) else -1
