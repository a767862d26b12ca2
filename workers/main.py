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

from shared import cli, fleet, health, settings, tracing
from shared.broker import Session, backoff, hold, open_session
from shared.errors import BrokerUnavailableError, FateUnknownError, StateUnavailableError
from shared.log import configure
from shared.settings import Settings
from workers import metrics, tally
from workers.consumer import Consumer, Delivery
from workers.emitter import emit
from workers.pipeline import absorb
from workers.store import Store

ADMIN_PORT: Final = 9091

GRACE: Final = 10.0
"""Seconds that the window in hand has to be finished when the process is told to stop."""

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
        self._store = Store(settings)
        self._tracing = tracing.start(settings, "mms-worker")
        self._handling = asyncio.Lock()
        self._in_hand: Sequence[Delivery] = ()
        self._consumer: Consumer | None = None
        self._redis_problem: str | None = "not asked yet"
        self._rabbitmq_problem: str | None = "not connected yet"

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then finish the window in hand.

        Raises:
            TopologyConflictError: the queues that are there are not ours; nothing is consumed.
        """
        admin = web.AppRunner(health.application(self._readiness, self._refresh), access_log=None)
        async with contextlib.aclosing(self._store), asyncio.TaskGroup() as parts:
            try:
                await self._listen(admin)
                log.info("pid %d", os.getpid())
                working = parts.create_task(self._work())
                await stop.wait()
                log.info("stopping: finishing the window in hand")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._handling.acquire(), GRACE)
                working.cancel()
            finally:
                await admin.cleanup()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)
        log.info("stopped")

    async def _listen(self, admin: web.AppRunner) -> None:
        if self._child is not None:
            await health.listen_to_parent(admin, self._child)
            return
        port = self._settings.admin_port or ADMIN_PORT
        await health.listen(admin, self._settings.admin_host, port, "MMS_ADMIN_PORT")

    async def _work(self) -> None:
        while True:
            await self._redis_answers()
            session = await self._session()
            try:
                await self._serve(session)
            except* StateUnavailableError as errors:
                self._redis_problem = str(errors.exceptions[0])
                log.warning("giving batches back once: %s", self._redis_problem)
            except* (BrokerUnavailableError, FateUnknownError) as errors:
                self._report(str(errors.exceptions[0]))
                await backoff(0)
            finally:
                self._consumer = None
                await session.close()

    async def _redis_answers(self) -> None:
        attempt = 0
        while True:
            try:
                await self._store.check()
            except StateUnavailableError as error:
                self._redis_problem = str(error)
                if attempt == 0:
                    log.warning("not consuming: %s", error)
                await backoff(attempt)
                attempt += 1
            else:
                self._redis_problem = None
                return

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
        """
        if self._in_hand:
            await emit(session, await absorb(self._store, self._in_hand, self._tracing))
            self._in_hand = ()
        consumer = Consumer(session)
        await consumer.start()
        self._consumer = consumer
        async with asyncio.TaskGroup() as tasks:
            windows = tasks.create_task(self._handle_windows(session, consumer))
            await hold(session, self._settings, self._report, lambda: consumer.alive)
            windows.cancel()
        self._report("lost the connection to RabbitMQ or the consumer on it")

    async def _handle_windows(self, session: Session, consumer: Consumer) -> None:
        while True:
            window = await consumer.window()
            async with self._handling:
                self._in_hand = [each._replace(redelivered=True) for each in window]
                untold = await absorb(self._store, window, self._tracing)
                await emit(session, untold)
                self._in_hand = ()
                await consumer.acknowledge(window)
                tally.count(untold)

    def _report(self, problem: str | None) -> None:
        if problem is not None and problem != self._rabbitmq_problem:
            log.warning("%s", problem)
        self._rabbitmq_problem = problem

    @property
    def _consuming(self) -> bool:
        return self._consumer is not None and self._consumer.alive

    def _refresh(self) -> None:
        metrics.CONSUMING.set(self._consuming)

    def _readiness(self) -> Mapping[str, str | None]:
        return {
            "redis": self._redis_problem,
            "rabbitmq": self._rabbitmq_problem,
            "consumer": None if self._consuming else "no consumer on the input queue",
        }


@click.command(epilog=cli.settings_help())
@click.version_option(package_name="mms-postbacks")
@fleet.options
def main(processes: int, child: Path | None) -> None:
    """Take postbacks from RabbitMQ, keep the state in Redis and emit events.

    Start as many as you like: they share the work of one queue. A worker waits for servers that
    are away and goes on by itself when they are back.
    """
    cli.run(_main(processes, child))


async def _main(processes: int, child: Path | None) -> None:
    loaded = settings.load()
    configure(loaded.log_level, loaded.log_format)
    if child is None:
        settings.warn_of_unknown()
    _look_for_cycles_rarely()
    stop = fleet.stop_event(child, processes)
    if processes > 1:
        port = loaded.admin_port or ADMIN_PORT
        await fleet.Fleet(processes, loaded.admin_host, port).run(stop)
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
