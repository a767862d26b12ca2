"""Batches as they come, and their acknowledgement.

Takes whatever has arrived, up to `WINDOW_BYTES` and `WINDOW_POSTBACKS`. A batch that was delivered
before may be what killed the worker that had it: it is handled alone and in random order among its
like, so that a batch which kills workers again and again does not take its neighbours with it to
the delivery limit.
"""

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from aiormq.abc import DeliveredMessage

from shared.postback import envelope
from shared.rabbitmq.session import Session, connection_errors, raise_lost_cancellation
from shared.rabbitmq.topology import STATE_QUEUE

CALL_LIMIT: Final = 5.0

WINDOW_BYTES: Final = 256 * 1024
"""Bytes of batches in a window, if it holds more than one: some 600 postbacks, done within a tenth
of a second. What was prefetched beyond it is at hand when the window is done."""

WINDOW_POSTBACKS: Final = 1000
"""Postbacks in a window, if it holds more than one batch. Bodies may be of a few bytes, and each
costs as much work and memory as any other."""


class Delivery(NamedTuple):
    """One AMQP message from the input queue.

    Attributes:
        tag: what acknowledges it.
        redelivered: whether somebody had it before and did not acknowledge it.
        batch: the batch's id, see `envelope.batch_id`.
    """

    tag: int
    content_type: str
    body: bytes
    redelivered: bool
    batch: str = ""


class Consumer:
    """Consumes the input queue on one session, on which it is the only one to consume."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._fresh: deque[Delivery] = deque()
        self._redelivered: list[Delivery] = []
        self._arrived = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._done = _Done()
        self._tag = ""
        self._paused = False

    @property
    def alive(self) -> bool:
        """Whether RabbitMQ has this consumer now, as far as it has told us."""
        return self._session.open and self._tag in self._session.channel.consumers

    @property
    def lost(self) -> bool:
        """Whether RabbitMQ has cancelled this consumer, or its session is closed."""
        return not (self.alive or (self._paused and self._session.open))

    async def start(self) -> None:
        """Begin to consume.

        Raises:
            BrokerUnavailableError: RabbitMQ did not answer or has no such queue.
        """
        with connection_errors(f"cannot consume {STATE_QUEUE}"):
            async with asyncio.timeout(CALL_LIMIT):
                answer = await self._session.channel.basic_consume(STATE_QUEUE, self._take)
        self._tag = str(answer.consumer_tag)

    async def pause(self) -> None:
        """Cancel the consumer. What was delivered can still be handled and acknowledged.

        Raises:
            BrokerUnavailableError: RabbitMQ did not answer.
        """
        if self._paused:
            return
        self._paused = True
        # RabbitMQ must answer: what it delivers until then is still taken.
        with connection_errors(f"cannot stop consuming {STATE_QUEUE}"):
            async with asyncio.timeout(CALL_LIMIT):
                await self._session.channel.basic_cancel(self._tag)

    async def resume(self) -> None:
        """Consume again after `pause`, on the same channel.

        Raises:
            BrokerUnavailableError: RabbitMQ did not answer or has no such queue.
        """
        await self.start()
        self._paused = False

    async def empty(self) -> None:
        """Wait until all that has arrived was given out by `window`."""
        await self._empty.wait()

    async def window(self) -> Sequence[Delivery]:
        """Wait until something has arrived; then one redelivered batch, or as many as are fresh."""
        raise_lost_cancellation()  # of the window before: the loop that handles them must end
        while not (self._fresh or self._redelivered):
            self._arrived.clear()
            await self._arrived.wait()
        window = self._next()
        if not (self._fresh or self._redelivered):
            self._empty.set()
        return window

    def _next(self) -> Sequence[Delivery]:
        if self._redelivered:
            return [self._redelivered.pop(random.randrange(len(self._redelivered)))]  # noqa: S311
        window = [self._fresh.popleft()]
        size, postbacks = len(window[0].body), envelope.count(window[0].body)
        while self._fresh:
            size += len(self._fresh[0].body)
            postbacks += envelope.count(self._fresh[0].body)
            if size > WINDOW_BYTES or postbacks > WINDOW_POSTBACKS:
                break
            window.append(self._fresh.popleft())
        return window

    async def acknowledge(self, window: Sequence[Delivery]) -> None:
        """Tell RabbitMQ that these are done with.

        Raises:
            BrokerUnavailableError: the session is no more; they will come again.
        """
        tags = [delivery.tag for delivery in window]
        channel = self._session.channel
        with connection_errors("cannot acknowledge"):
            if self._done.all_up_to_the_last(tags):
                await channel.basic_ack(max(tags), multiple=True, wait=False)
            else:
                for tag in tags:
                    await channel.basic_ack(tag, wait=False)

    async def _take(self, message: DeliveredMessage) -> None:
        properties = message.header.properties
        delivery = Delivery(
            tag=message.delivery_tag or 0,
            content_type=str(properties.content_type or ""),
            body=message.body,
            redelivered=bool(message.redelivered),
            batch=str(properties.message_id or ""),
        )
        if delivery.redelivered:
            self._redelivered.append(delivery)
        else:
            self._fresh.append(delivery)
        self._empty.clear()
        self._arrived.set()


class _Done:
    """Which deliveries of a channel are done with. RabbitMQ numbers them 1, 2, 3 and so on.

    An acknowledgement may stand for all deliveries up to one. What was redelivered is handled out
    of order, so that is right only while nothing below is still open.
    """

    def __init__(self) -> None:
        self._all_up_to = 0
        self._beyond: set[int] = set()

    def all_up_to_the_last(self, tags: Sequence[int]) -> bool:
        """Note that these are done; whether by now all up to the last of them are."""
        self._beyond.update(tags)
        while self._all_up_to + 1 in self._beyond:
            self._all_up_to += 1
            self._beyond.remove(self._all_up_to)
        return max(tags) <= self._all_up_to
