"""Consume batches in windows, and acknowledge them.

A window is whatever has arrived, up to `WINDOW_BYTES` and `WINDOW_POSTBACKS`. A redelivered batch
may be the one that killed the worker that had it. So it is a window of its own, and redelivered
batches are taken in random order: a batch that kills workers again and again does not take others
with it to the delivery limit.
"""

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from aiormq.abc import DeliveredMessage

from shared.cancellation import raise_lost_cancellation
from shared.postback import envelope
from shared.rabbitmq.errors import connection_errors
from shared.rabbitmq.session import Session
from shared.rabbitmq.topology import STATE_QUEUE

CALL_LIMIT: Final = 5.0
"""Seconds that RabbitMQ may take to answer one call."""

WINDOW_BYTES: Final = 256 * 1024
"""Bytes of a window that holds more than one batch: some 600 postbacks, processed within a tenth of
a second. The rest of the prefetch is in memory when the window is done."""

WINDOW_POSTBACKS: Final = 1000
"""Postbacks of a window that holds more than one batch. Bodies may have a few bytes, and each
postback costs as much work and memory as any other."""


class Delivery(NamedTuple):
    """One AMQP message from the input queue.

    Attributes:
        tag: RabbitMQ's number of the delivery, used to acknowledge it.
        redelivered: whether it was delivered before and not acknowledged.
        batch_id: see `envelope.batch_id`.
    """

    tag: int
    content_type: str
    body: bytes
    redelivered: bool
    batch_id: str = ""


class Consumer:
    """Consumes the input queue; must be the only consumer on its session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._fresh: deque[Delivery] = deque()
        self._redelivered: list[Delivery] = []
        self._arrived = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._done = _DoneDeliveries()
        self._tag = ""
        self._paused = False

    @property
    def alive(self) -> bool:
        """Whether RabbitMQ has this consumer now, as far as this process knows."""
        return self._session.consumes(self._tag)

    @property
    def lost(self) -> bool:
        """Whether RabbitMQ has cancelled this consumer, or its session is closed."""
        return not (self.alive or (self._paused and self._session.open))

    async def start(self) -> None:
        """Start to consume.

        Raises:
            BrokerUnavailableError: RabbitMQ did not answer or has no such queue.
        """
        with connection_errors(f"cannot consume {STATE_QUEUE}"):
            async with asyncio.timeout(CALL_LIMIT):
                answer = await self._session.channel.basic_consume(STATE_QUEUE, self._take)
        self._tag = str(answer.consumer_tag)

    async def pause(self) -> None:
        """Cancel the consumer. Delivered batches can still be processed and acknowledged.

        Raises:
            BrokerUnavailableError: RabbitMQ did not answer.
        """
        if self._paused:
            return
        self._paused = True
        # Waits for RabbitMQ's answer: it may deliver more until then.
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
        """Wait until `window` has returned everything that has arrived."""
        await self._empty.wait()

    async def window(self) -> Sequence[Delivery]:
        """Wait for a delivery; then return one redelivered batch, or several that are not."""
        raise_lost_cancellation()  # of the window before: the loop that processes them must end
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
        """Acknowledge the batches of a window.

        Raises:
            BrokerUnavailableError: the session is lost; RabbitMQ redelivers the batches.
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
            batch_id=str(properties.message_id or ""),
        )
        if delivery.redelivered:
            self._redelivered.append(delivery)
        else:
            self._fresh.append(delivery)
        self._empty.clear()
        self._arrived.set()


class _DoneDeliveries:
    """Which deliveries of a channel are done. RabbitMQ numbers them 1, 2, 3 and so on.

    One acknowledgement can cover all deliveries up to a number. Redelivered batches are processed
    out of order, so it may do so only while no earlier delivery is still unacknowledged.
    """

    def __init__(self) -> None:
        self._all_up_to = 0
        self._beyond: set[int] = set()

    def all_up_to_the_last(self, tags: Sequence[int]) -> bool:
        """Note that these are done; return whether all up to the last of them are done now."""
        self._beyond.update(tags)
        while self._all_up_to + 1 in self._beyond:
            self._all_up_to += 1
            self._beyond.remove(self._all_up_to)
        return max(tags) <= self._all_up_to
