"""`--processes N`: several child processes of one command, and the parent that supervises them.

The parent starts the same command N times, starts a child again when it ends, passes a SIGTERM on
and serves one admin port for all: `/readyz` has the lines of each child, `/metrics` the metrics of
each child, with the label `process`. The children serve these on Unix sockets in a folder that
only this user can enter. So one command needs one admin port, however many processes it has. A
child's standard input is a pipe from its parent. When the parent ends, for any reason, the pipe
closes and the child stops as on a SIGTERM.
"""

import asyncio
import contextlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import click
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from shared.errors import SettingsError, StartError
from shared.process import admin_server, cli, listen, watchdog
from shared.process.admin_server import Ready
from shared.process.child_responses import MergedMetrics, request_all
from shared.process.supervisor import Supervisor
from shared.settings.settings import Settings

STOP_LIMIT: Final = 20.0
"""Seconds that a child may take to end after a SIGTERM; then it is killed."""

PARENT_STOP_LIMIT: Final = STOP_LIMIT + 5.0
"""Seconds that the parent may take to end after a signal."""

REFUSAL_PERIOD: Final = 10.0
"""Seconds from the start of the parent. When a child refuses its settings in them, both end."""

# A registry of its own: the default registry has the metrics of the work, which a parent does not
# do.
_REGISTRY: Final = CollectorRegistry()
_RESTARTS: Final = Counter(
    "mms_process_restarts_total", "Processes that ended and were started again", registry=_REGISTRY
)
_RUNNING: Final = Gauge("mms_processes_running", "Processes that run now", registry=_REGISTRY)

log: Final = logging.getLogger(__name__)

Command = TypeVar("Command", bound=Callable[..., None])


def options(command: Command) -> Command:
    """Add `--processes` to a command, and the hidden option that makes it a child."""
    processes = click.option(
        "--processes",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Processes to run; one that ends is started again. All share one admin port.",
    )
    child = click.option("--child", type=click.Path(path_type=Path), hidden=True)
    return processes(child(command))


def stop_event(child: Path | None, processes: int = 1) -> asyncio.Event:
    """An event that is set when this process must stop: by a signal, or by its parent's end.

    Args:
        child: path of the admin socket in a child process, else None.
        processes: how many children this process has, if more than 1.
    """
    stop = cli.stop_event(watchdog.END_LIMIT if processes == 1 else PARENT_STOP_LIMIT)
    if child is not None:
        loop = asyncio.get_running_loop()

        def parent_ended() -> None:
            loop.remove_reader(sys.stdin)
            watchdog.end_within(watchdog.END_LIMIT)
            stop.set()

        loop.add_reader(sys.stdin, parent_ended)
    return stop


async def run_children(
    count: int, settings: Settings, default_admin_port: int, stop: asyncio.Event
) -> None:
    """Run several children of this command until `stop` is set; return when all have ended.

    Args:
        count: number of children.
        default_admin_port: the admin port when `admin_port` is 0.

    Raises:
        SettingsError: the admin port cannot be used.
        BaseExceptionGroup: with a `SettingsError` when a child refused its settings at the start,
            or a `StartError` when a child could not be started.
    """
    with tempfile.TemporaryDirectory(prefix="mms-") as folder:
        children = [_Child(number, Path(folder, str(number))) for number in range(count)]
        admin = admin_server.runner(_admin_routes(children, stop))
        try:
            await listen.on_admin_port(admin, settings, default_admin_port, None)
            log.info("%d processes, pid %d", count, os.getpid())
            async with Supervisor(lambda text: log.warning("%s", text)) as supervisor:
                await supervisor.start(children)
                await stop.wait()
                log.info("stopping %d processes", sum(child.running for child in children))
        finally:
            await admin.cleanup()
    log.info("all processes have stopped")


class _Child:
    """A child process, for the supervisor.

    Args:
        socket: path of its admin socket.
    """

    def __init__(self, number: int, socket: Path) -> None:
        self.name = f"process {number}"
        self.socket = socket
        self._process: asyncio.subprocess.Process | None = None
        self._refusal_until = time.monotonic() + REFUSAL_PERIOD

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        command = (sys.executable, sys.argv[0], "--child", self.socket)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.PIPE
            )
        except OSError as error:
            raise StartError(f"{self.name} cannot be started: {error}") from error

    async def wait(self) -> str:
        status = await self._process.wait() if self._process else 0
        if status == cli.REFUSED and time.monotonic() < self._refusal_until:
            raise SettingsError(f"{self.name} ended at once; its error is above")
        _RESTARTS.inc()
        return f"status {status}"

    async def stop(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
            try:
                async with asyncio.timeout(STOP_LIMIT):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()


def _admin_routes(children: Sequence[_Child], stop: asyncio.Event) -> web.Application:
    sockets = [child.socket for child in children]

    async def ready() -> Ready:
        responses = await request_all(sockets, "/readyz")
        lines = (
            f"{child.name}: {line}\n"
            for child, response in zip(children, responses, strict=True)
            for line in response.text.splitlines()
        )
        one_is_ready = any(response.ok for response in responses)
        return Ready(one_is_ready and not stop.is_set(), "".join(lines))

    async def metrics() -> bytes:
        _RUNNING.set(sum(child.running for child in children))
        responses = await request_all(sockets, "/metrics")
        return generate_latest(_REGISTRY) + generate_latest(MergedMetrics(responses))

    return admin_server.routes(ready, metrics)
