"""The `mms-worker` process: waits for its servers, works while both are there, stops cleanly."""

import asyncio
import contextlib
import gc
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import click
from aiohttp import web

from shared.errors import BrokerUnavailableError, PublishOutcomeUnknownError, StateUnavailableError
from shared.log import configure
from shared.process import admin_server, cli, listen, multiprocess, tracing
from shared.process.components import Components
from shared.rabbitmq.session import Session, backoff, hold, open_session
from shared.settings.load import load_settings, warn_of_unknown_variables
from shared.settings.settings import Settings
from workers import metrics, pipeline, window_metrics
from workers.consumer import Consumer, Delivery
from workers.pipeline import process_window
from workers.probes import RedisProbe, WatchedStore, probe_rabbitmq
from workers.publish import publish_outbox

ADMIN_PORT: Final = 9091

SHUTDOWN_LIMIT: Final = 10.0
"""Seconds that the window in hand has to be finished when the process is told to stop."""

ADMIN_SHUTDOWN_LIMIT: Final = 1.0
"""Seconds that answers of the admin port have to be read when the process ends."""

LOG_AFTER: Final = 1.0
"""Seconds without an answer of Redis after which the log says that nothing is consumed."""

GC_EVERY: Final = 20_000
"""Objects more than before, after which Python looks for cycles among the new ones."""

log: Final = logging.getLogger("mms-worker")


class Worker:
    """One worker: one session to RabbitMQ, one consumer, one window at a time.

    Args:
        child: where to answer the parent when this is one of several processes, else None.
    """

    def __init__(self, settings: Settings, child: Path | None = None) -> None:
        self._settings = settings
        self._child = child
        self._components = Components()
        self._redis = RedisProbe(settings)
        self._store = WatchedStore(settings, self._redis)
        self._tracing = tracing.start(settings, "mms-worker")
        self._handling = asyncio.Lock()
        self._in_hand: Sequence[Delivery] = ()
        self._consumer: Consumer | None = None
        self._rabbitmq_problem: str | None = "not connected yet"
        self._unanswered: str | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then finish the window in hand.

        Raises:
            BaseExceptionGroup: a component ended unexpectedly, see `Components`. With a
                `TopologyConflictError`, the queues that are there are not ours; with an
                `UnsupportedRedisError`, Redis is too old. Nothing is consumed then.
        """
        admin = web.AppRunner(
            admin_server.application(self._readiness, self._refresh),
            access_log=None,
            shutdown_timeout=ADMIN_SHUTDOWN_LIMIT,
        )
        async with contextlib.AsyncExitStack() as cleanup:  # the last first; none skips another
            if self._tracing is not None:
                cleanup.push_async_callback(asyncio.to_thread, self._tracing.close)
            cleanup.push_async_callback(self._store.aclose)
            components = await cleanup.enter_async_context(self._components)
            cleanup.push_async_callback(admin.cleanup)
            cleanup.push_async_callback(self._finish_window)
            await self._listen(admin)
            log.info("pid %d", os.getpid())
            components.start("probe of Redis", self._redis.run())
            components.start("consumer", self._work())
            await stop.wait()
            log.info("stopping: finishing the window in hand")
        log.info("stopped")

    async def _finish_window(self) -> None:
        """Wait for the window in hand, and begin no other."""
        self._components.stopping = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_LIMIT):
                await self._handling.acquire()

    async def _listen(self, admin: web.AppRunner) -> None:
        await listen.on_admin_port(admin, self._settings, ADMIN_PORT, self._child)

    async def _work(self) -> None:
        while True:
            await self._redis_answers()
            session = await self._session()
            try:
                await self._serve(session)
            except* StateUnavailableError as errors:
                log.warning("requeued unacknowledged batches once: %s", errors.exceptions[0])
            except* (BrokerUnavailableError, PublishOutcomeUnknownError) as errors:
                self._report(str(errors.exceptions[0]))
                await backoff(0)
            finally:
                self._consumer = None
                self._unanswered = None
                await session.close()

    async def _redis_answers(self) -> None:
        try:
            async with asyncio.timeout(LOG_AFTER):
                await self._redis.answers()
        except TimeoutError:
            log.warning("not consuming: %s", self._redis.problem)
            await self._redis.answers()

    async def _session(self) -> Session:
        attempt = 0
        while True:
            try:
                session = await open_session(
                    self._settings, name="mms-worker", prefetch=self._settings.prefetch
                )
            except BrokerUnavailableError as error:
                self._report(str(error))
                await backoff(attempt)
                attempt += 1
            else:
                log.info("connected to RabbitMQ")
                self._report(None)
                return session

    async def _serve(self, session: Session) -> None:
        """Consume on this session until it is lost.

        The window that failed before must go through first, all the way but its acknowledgement:
        it has been given back and will come again. It is the best probe: while a Redis node is
        away, or RabbitMQ takes no publishes (a memory alarm, a stream without a leader), each
        batch consumed would be given back, and that counts towards its delivery limit.

        Raises:
            BaseExceptionGroup: with a `StateUnavailableError` when Redis stayed away, with a
                `BrokerUnavailableError` or `PublishOutcomeUnknownError` when the session is of no
                use.
        """
        publishing = await session.another_channel()
        if self._in_hand:
            outbox = await process_window(self._store, self._in_hand, self._tracing)
            await publish_outbox(publishing, outbox)
            self._in_hand = ()
        consumer = Consumer(session)
        await consumer.start()
        self._consumer = consumer
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._handle_windows(publishing, consumer))
            tasks.create_task(self._pause_while_redis_is_away(consumer))
            tasks.create_task(probe_rabbitmq(session, self._report_answer))
            await hold(session, self._settings, self._report, lambda: not consumer.lost)
            raise BrokerUnavailableError("lost the connection to RabbitMQ or the consumer on it")

    async def _handle_windows(self, publishing: Session, consumer: Consumer) -> None:
        """Handle windows one after the other.

        Events have a channel of their own, `publishing`. RabbitMQ closes it when it refuses a
        message, and that must not requeue what is being consumed.
        """
        while True:
            window = await consumer.window()
            async with self._handling:
                self._in_hand = [each._replace(redelivered=True) for each in window]
                outbox = await process_window(self._store, window, self._tracing)
                if not publishing.open:
                    await publishing.reopen_channel()
                await publish_outbox(publishing, outbox)
                self._in_hand = ()
                await consumer.acknowledge(window)
                window_metrics.count(outbox)

    async def _pause_while_redis_is_away(self, consumer: Consumer) -> None:
        """Stop consuming as soon as Redis is away, and requeue only if it stays away.

        Every worker finds Redis away within two seconds, and requeues
        `REDIS_WAIT_LIMIT` later. So when
        the first one requeues its batches nobody consumes, and an outage costs a batch one
        delivery, however long it is and however many workers there are.

        Raises:
            StateUnavailableError: Redis stayed away longer than `REDIS_WAIT_LIMIT`.
        """
        while True:
            await self._redis.away()
            log.warning("stopped consuming: %s", self._redis.problem)
            await consumer.pause()
            try:
                async with asyncio.timeout(pipeline.REDIS_WAIT_LIMIT):
                    await self._redis.available()
            except TimeoutError as error:
                raise StateUnavailableError(self._redis.problem) from error
            # What was delivered comes first, else each pause would add as many as the prefetch.
            await consumer.empty()
            if self._redis.problem is None:
                await consumer.resume()
                log.info("consuming again")

    def _report(self, problem: str | None) -> None:
        if problem is not None and problem != self._rabbitmq_problem:
            log.warning("%s", problem)
        self._rabbitmq_problem = problem

    def _report_answer(self, problem: str | None) -> None:
        if problem is not None and problem != self._unanswered:
            log.warning("%s", problem)
        self._unanswered = problem

    @property
    def _consuming(self) -> bool:
        return self._consumer is not None and self._consumer.alive

    def _refresh(self) -> None:
        metrics.CONSUMING.set(self._consuming)

    def _readiness(self) -> Mapping[str, str | None]:
        """Ready while a batch in the queue would be processed now."""
        return {
            "stopping": "told to stop" if self._components.stopping else None,
            "components": self._components.problem,
            "redis": self._redis.problem,
            "rabbitmq": self._rabbitmq_problem or self._unanswered,
            "consumer": None if self._consuming else "no consumer on the input queue",
        }


@click.command(epilog=cli.settings_help())
@click.version_option(package_name="mms-postbacks")
@multiprocess.options
def main(processes: int, child: Path | None) -> None:
    """Take postbacks from RabbitMQ, keep the state in Redis and emit events.

    Start as many as you like: they share the work of one queue. A worker waits for servers that
    are away and goes on by itself when they are back.
    """
    cli.run(_main(processes, child))


async def _main(processes: int, child: Path | None) -> None:
    loaded = load_settings()
    configure(loaded.log_level, loaded.log_format)
    if child is None:
        warn_of_unknown_variables()
    _look_for_cycles_rarely()
    stop = multiprocess.stop_event(child, processes)
    if processes > 1:
        await multiprocess.run_children(processes, loaded, ADMIN_PORT, stop)
    else:
        await Worker(loaded, child).run(stop)


def _look_for_cycles_rarely() -> None:
    """Have Python look for cycles about once for a window, not ten times.

    A window is thousands of objects that live until it is done with and are in no cycle. Modules
    and metrics stay for good, so they are not looked through at all.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_EVERY)
