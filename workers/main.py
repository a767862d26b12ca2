"""The `mms-worker` process: builds the components, runs them, and stops them in order."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from shared.log import configure
from shared.process import admin_server, cli, listen, multiprocess, tracing
from shared.process.components import Components
from shared.settings.load import load_settings, warn_of_unknown_variables
from shared.settings.settings import Settings
from workers import metrics
from workers.gc_tuning import tune_garbage_collector
from workers.probes import RedisProbe, WatchedStore
from workers.worker import Worker

ADMIN_PORT: Final = 9091

SHUTDOWN_LIMIT: Final = 10.0
"""Seconds to finish the current window when the process stops."""

log: Final = logging.getLogger("mms-worker")


class WorkerProcess:
    """One process of the worker.

    Args:
        child: the Unix socket for the parent when this is one of several processes, else None.
    """

    def __init__(self, settings: Settings, child: Path | None = None) -> None:
        self._settings = settings
        self._child = child
        self._components = Components()
        self._redis = RedisProbe(settings)
        self._store = WatchedStore(settings, self._redis)
        self._tracing = tracing.start(settings, "mms-worker")
        self._worker = Worker(settings, self._store, self._redis, self._tracing)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then finish the current window.

        Raises:
            BaseExceptionGroup: a component ended unexpectedly, see `Components`. With a
                `TopologyConflictError`, RabbitMQ has queues that differ from ours; with an
                `UnsupportedRedisError`, Redis is too old. Nothing is consumed then.
        """
        admin = admin_server.runner(admin_server.application(self._readiness, self._refresh))
        async with contextlib.AsyncExitStack() as cleanup:
            # Runs in reverse order; a step that fails does not skip the others.
            if self._tracing is not None:
                cleanup.push_async_callback(asyncio.to_thread, self._tracing.close)
            cleanup.push_async_callback(self._store.aclose)
            components = await cleanup.enter_async_context(self._components)
            cleanup.push_async_callback(admin.cleanup)
            cleanup.push_async_callback(self._finish_window)
            await listen.on_admin_port(admin, self._settings, ADMIN_PORT, self._child)
            log.info("mms-worker has started, pid %d", os.getpid())
            components.start("probe of Redis", self._redis.run())
            components.start("consumer", self._worker.run())
            await stop.wait()
            log.info("stopping: finishing the current window")
        log.info("stopped")

    async def _finish_window(self) -> None:
        self._components.stopping = True
        await self._worker.finish_window(SHUTDOWN_LIMIT)

    def _refresh(self) -> None:
        metrics.CONSUMING.set(self._worker.consuming)

    def _readiness(self) -> Mapping[str, str | None]:
        """Ready while a batch in the queue would be processed now."""
        return {
            "stopping": "the process is stopping" if self._components.stopping else None,
            "components": self._components.problem,
            "redis": self._redis.problem,
            "rabbitmq": self._worker.problem,
            "consumer": None if self._worker.consuming else "no consumer on the input queue",
        }


@click.command(epilog=cli.settings_help())
@click.version_option(package_name="mms-postbacks")
@multiprocess.options
def main(processes: int, child: Path | None) -> None:
    """Take postbacks from RabbitMQ, keep the state in Redis and publish events.

    Start as many workers as you like: they share one queue. A worker waits for servers that are
    away, and resumes when they are back.
    """
    cli.run(_main(processes, child))


async def _main(processes: int, child: Path | None) -> None:
    loaded = load_settings()
    configure(loaded.log_level, loaded.log_format)
    if child is None:
        warn_of_unknown_variables()
    tune_garbage_collector()
    stop = multiprocess.stop_event(child, processes)
    if processes > 1:
        await multiprocess.run_children(processes, loaded, ADMIN_PORT, stop)
    else:
        await WorkerProcess(loaded, child).run(stop)
