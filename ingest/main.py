"""The `mms-ingest` process: builds the components, runs them, and stops them in order."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click
from aiohttp import web

from ingest import metrics
from ingest.access_control.policy import PATH
from ingest.batcher import Batcher
from ingest.breaker import Breaker
from ingest.commit import Committer
from ingest.http.connections import raise_file_limit
from ingest.http.server import Server
from ingest.probe import probe
from ingest.publisher import Publisher
from ingest.spool.drain import check_spool, drain
from ingest.spool.spool import Spool
from shared.errors import OverloadedError
from shared.log import configure
from shared.process import admin_server, cli, listen, multiprocess, tracing
from shared.process.admin_server import Degraded
from shared.process.components import Components
from shared.process.tls import server_context
from shared.settings.load import load_settings, warn_of_unknown_variables
from shared.settings.settings import Settings

ADMIN_PORT: Final = 9090

SHUTDOWN_NOTICE: Final = 1.0
"""Seconds to go on serving after the signal to stop. `/readyz` reports it and each response closes
its connection, so that balancers and clients go elsewhere before the port is closed."""

SHUTDOWN_LIMIT: Final = 10.0
"""Seconds that requests in progress have to finish when the process stops."""

log: Final = logging.getLogger("mms-ingest")


class Ingest:
    """One process of the ingress.

    Args:
        child: the Unix socket for the parent when this is one of several processes, else None.
    """

    def __init__(self, settings: Settings, child: Path | None = None) -> None:
        self._settings = settings
        self._child = child
        self._components = Components()
        self._breaker = Breaker()
        self._publisher = Publisher(settings)
        self._spool = (
            Spool(Path(settings.spool_path), settings.spool_max_bytes)
            if settings.spool_path
            else None
        )
        self._committer = Committer(self._publisher, self._breaker, self._spool)
        self._batcher = Batcher(
            self._committer.commit,
            max_waiting=settings.max_waiting,
            largest=lambda: self._publisher.largest,
            linger=settings.linger,
        )
        self._tracing = tracing.start(settings, "mms-ingest")
        self._server = Server(settings, self._batcher, self._tracing)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then finish the requests in progress.

        Raises:
            BaseExceptionGroup: a component ended unexpectedly, see `Components`.
        """
        tls = server_context(self._settings.tls_cert, self._settings.tls_key)
        connections = self._server.aiohttp_server(tls)
        public = web.ServerRunner(connections, shutdown_timeout=SHUTDOWN_LIMIT)
        admin = admin_server.runner(admin_server.application(self._readiness, self._refresh))
        async with contextlib.AsyncExitStack() as cleanup:
            # Runs in reverse order; a step that fails does not skip the others.
            if self._tracing is not None:
                cleanup.push_async_callback(asyncio.to_thread, self._tracing.close)
            if self._spool is not None:
                cleanup.push_async_callback(self._spool.aclose)
            components = await cleanup.enter_async_context(self._components)
            components.start("publisher", self._publisher.run())
            components.start("probe", probe(self._breaker, self._publisher, self._spool))
            components.start("connection sweep", connections.close_slow())
            if self._spool is not None:
                components.start("drain", drain(self._spool, self._committer, self._breaker))
                components.start("spool check", check_spool(self._spool, self._rabbitmq_down))
            batcher = components.start("batcher", self._batcher.run())
            cleanup.push_async_callback(admin.cleanup)
            cleanup.push_async_callback(self._finish_batches, batcher)
            cleanup.push_async_callback(public.cleanup)
            cleanup.callback(self._stop_serving)
            await self._listen(public, admin)
            await stop.wait()
            log.info("stopping: closing connections, finishing requests in progress")
            self._server.stopping = True
            await asyncio.sleep(SHUTDOWN_NOTICE)
        log.info("stopped")

    def _stop_serving(self) -> None:
        self._server.stopping = True
        self._components.stopping = True

    async def _finish_batches(self, batcher: "asyncio.Task[None]") -> None:
        self._batcher.stop()
        await asyncio.wait([batcher])

    async def _listen(self, public: web.ServerRunner, admin: web.AppRunner) -> None:
        if raise_file_limit(self._settings.max_connections) < self._settings.max_connections:
            log.warning("this machine allows fewer open files (ulimit -n) than MMS_MAX_CONNECTIONS")
        host, port = self._settings.ingest_host, self._settings.ingest_port
        await listen.on_admin_port(admin, self._settings, ADMIN_PORT, self._child)
        shared = self._child is not None
        await listen.on_port(public, host, port, "MMS_INGEST_PORT", shared=shared)
        scheme = "https" if self._settings.tls_cert else "http"
        log.info("listening on %s://%s:%d%s, pid %d", scheme, host, port, PATH, os.getpid())

    def _rabbitmq_down(self) -> bool:
        return not self._breaker.closed or self._publisher.problem is not None

    def _readiness(self) -> Mapping[str, str | None]:
        """Ready while a postback sent now would be answered 200, by RabbitMQ or by the spool."""
        rabbitmq = self._breaker.reason or self._publisher.problem
        needs = {
            "stopping": "the process is stopping" if self._server.stopping else None,
            "components": self._components.problem,
            "load": str(OverloadedError()) if self._batcher.full else None,
            "rabbitmq": rabbitmq,
        }
        if self._spool is None:
            return needs
        spool = self._spool.problem
        if rabbitmq is None:
            return needs | {"spool": spool if spool is None else Degraded(spool)}
        if spool is None:
            needs["rabbitmq"] = Degraded(f"{rabbitmq}; postbacks go to the spool")
        return needs | {"spool": spool}

    def _refresh(self) -> None:
        """Set the gauges before `/metrics` is read."""
        metrics.BREAKER_OPEN.set(not self._breaker.closed)
        metrics.IN_FLIGHT.set(self._server.in_flight)
        metrics.WAITING.set(self._batcher.waiting)
        if self._spool is not None and self._spool.drained_here:
            depth = self._spool.depth
            metrics.SPOOL_POSTBACKS.set(depth.postbacks)
            metrics.SET_ASIDE.set(self._spool.set_aside_postbacks)
            metrics.SPOOL_AGE.set(time.time() - depth.oldest if depth.oldest is not None else 0)


@click.command(epilog=cli.settings_help())
@click.version_option(package_name="mms-postbacks")
@multiprocess.options
def main(processes: int, child: Path | None) -> None:
    """Receive the provider's postbacks over HTTP and make them durable.

    Answers 200 only after RabbitMQ's confirm or the spool's fsync. Starts and serves without
    RabbitMQ too: the postbacks then wait in the spool.
    """
    cli.run(_main(processes, child))


async def _main(processes: int, child: Path | None) -> None:
    loaded = load_settings()
    configure(loaded.log_level, loaded.log_format)
    if child is None:
        warn_of_unknown_variables()
    stop = multiprocess.stop_event(child, processes)
    if processes > 1:
        listen.check_free(loaded.ingest_host, loaded.ingest_port, "MMS_INGEST_PORT")
        await multiprocess.run_children(processes, loaded, ADMIN_PORT, stop)
    else:
        await Ingest(loaded, child).run(stop)
