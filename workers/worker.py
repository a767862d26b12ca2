"""The way of a window through a worker: consume, process, publish, acknowledge.

A worker consumes while RabbitMQ and Redis both answer. When Redis is away it stops consuming, and
requeues its unacknowledged batches if Redis stays away.
"""

import asyncio
import contextlib
import logging
from typing import Final

from shared.errors import BrokerUnavailableError, StateUnavailableError
from shared.process.tracing import Tracing
from shared.rabbitmq.reconnect import Sessions, keep_topology
from shared.rabbitmq.session import Session, open_session
from shared.settings.settings import Settings
from workers import merge, window_metrics
from workers.consumer import Consumer, Delivery
from workers.pipeline import process_window
from workers.probes import RedisProbe, WatchedStore, probe_rabbitmq
from workers.publish import publish_outbox

LOG_DELAY: Final = 1.0
"""Seconds without an answer of Redis after which the log says that nothing is consumed."""

log: Final = logging.getLogger("mms-worker")


class Worker:
    """One session to RabbitMQ, one consumer, one window at a time.

    Args:
        store: the state.
        redis: probes the Redis of the store.

    Attributes:
        problem: why RabbitMQ cannot be used, or what is wrong with the topology; None if nothing.
    """

    def __init__(
        self, settings: Settings, store: WatchedStore, redis: RedisProbe, tracing: Tracing | None
    ) -> None:
        self._settings = settings
        self._store = store
        self._redis = redis
        self._tracing = tracing
        self._window_lock = asyncio.Lock()
        self._unacknowledged: list[Delivery] = []
        self._consumer: Consumer | None = None
        self._session_problem: str | None = "not connected yet"
        self._probe_problem: str | None = None

    @property
    def problem(self) -> str | None:
        return self._session_problem or self._probe_problem

    @property
    def consuming(self) -> bool:
        """Whether RabbitMQ has this worker's consumer."""
        return self._consumer is not None and self._consumer.alive

    async def run(self) -> None:
        """Consume whenever both servers answer, until cancelled.

        Raises:
            TopologyConflictError: RabbitMQ has queues that differ from ours; nothing is consumed.
        """
        sessions = Sessions(self._open_session, self._report_session)
        while True:
            async with sessions.next() as session:
                try:
                    await self._consume(session)
                except* StateUnavailableError as errors:
                    log.warning("requeued unacknowledged batches once: %s", errors.exceptions[0])
                finally:
                    self._consumer = None
                    self._probe_problem = None

    async def finish_window(self, limit: float) -> None:
        """Wait up to `limit` seconds until the current window is acknowledged; start no other."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._window_lock.acquire()

    async def _open_session(self) -> Session:
        await self._wait_for_redis()
        return await open_session(
            self._settings, name="mms-worker", prefetch=self._settings.prefetch
        )

    async def _wait_for_redis(self) -> None:
        try:
            async with asyncio.timeout(LOG_DELAY):
                await self._redis.wait_until_answering()
        except TimeoutError:
            log.warning("not consuming: %s", self._redis.problem)
            await self._redis.wait_until_answering()

    async def _consume(self, session: Session) -> None:
        """Consume on this session until it is lost.

        Raises:
            BaseExceptionGroup: with a `StateUnavailableError` when Redis stayed away, with a
                `BrokerUnavailableError` or `PublishOutcomeUnknownError` when the session is of no
                more use.
        """
        publishing = await session.another_channel()
        await self._process_unacknowledged(publishing)
        consumer = Consumer(session)
        await consumer.start()
        self._consumer = consumer
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._process_windows(publishing, consumer))
            tasks.create_task(self._pause_while_redis_is_away(consumer))
            tasks.create_task(probe_rabbitmq(session, self._report_probe))
            await keep_topology(
                session, self._settings, self._report_session, lambda: not consumer.lost
            )
            raise BrokerUnavailableError("lost the connection to RabbitMQ or the consumer on it")

    async def _process_unacknowledged(self, publishing: Session) -> None:
        """Process the window that failed on the session before, and publish its outbox.

        RabbitMQ has requeued its batches and delivers them again, so they are not acknowledged
        here. This is the best probe there is: while a Redis node is away, or RabbitMQ accepts no
        publishes (a memory alarm, a stream without a leader), each batch that is consumed would be
        requeued, and that counts towards its delivery limit.
        """
        if self._unacknowledged:
            outbox = await process_window(self._store, self._unacknowledged, self._tracing)
            await publish_outbox(publishing, outbox)
            self._unacknowledged = []

    async def _process_windows(self, publishing: Session, consumer: Consumer) -> None:
        """Process windows one after the other.

        Args:
            publishing: has a channel of its own for events and dead letters. RabbitMQ closes the
                channel when it refuses a message, and that must not requeue what is consumed.
        """
        while True:
            window = await consumer.window()
            async with self._window_lock:
                self._unacknowledged = [each._replace(redelivered=True) for each in window]
                outbox = await process_window(self._store, window, self._tracing)
                if not publishing.open:
                    await publishing.reopen_channel()
                await publish_outbox(publishing, outbox)
                self._unacknowledged = []
                await consumer.acknowledge(window)
                window_metrics.count(outbox)

    async def _pause_while_redis_is_away(self, consumer: Consumer) -> None:
        """Stop consuming as soon as Redis is away, and requeue only if it stays away.

        Every worker finds Redis away within two seconds, and requeues `REDIS_WAIT_LIMIT` later. So
        when the first worker requeues its batches no worker consumes, and an outage costs a batch
        one delivery, however long it is and however many workers there are.

        Raises:
            StateUnavailableError: Redis stayed away longer than `REDIS_WAIT_LIMIT`.
        """
        while True:
            await self._redis.wait_until_away()
            log.warning("stopped consuming: %s", self._redis.problem)
            await consumer.pause()
            try:
                async with asyncio.timeout(merge.REDIS_WAIT_LIMIT):
                    await self._redis.wait_until_available()
            except TimeoutError as error:
                raise StateUnavailableError(self._redis.problem) from error
            # Delivered batches first: else each pause would add a whole prefetch to them.
            await consumer.empty()
            if self._redis.problem is None:
                await consumer.resume()
                log.info("consuming again")

    def _report_session(self, problem: str | None) -> None:
        if problem is not None and problem != self._session_problem:
            log.warning("%s", problem)
        self._session_problem = problem

    def _report_probe(self, problem: str | None) -> None:
        if problem is not None and problem != self._probe_problem:
            log.warning("%s", problem)
        self._probe_problem = problem
