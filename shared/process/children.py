"""Several processes of one command: `--processes N`.

The parent starts the same command N times, starts again what ends, passes a SIGTERM on and serves
one admin port for all: `/readyz` with what each says, `/metrics` with what each counts, told apart
by the label `process`. The children answer it on Unix sockets in a folder that only we can enter,
so one command needs one admin port, however many processes it has. A child's standard input is a
pipe from its parent: when that ends, however it ends, the child stops as on a SIGTERM.
"""

import asyncio
import contextlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import aiohttp
import click
from aiohttp import web
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Metric,
    generate_latest,
)
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from shared.errors import SettingsError
from shared.process import admin_server, cli, watchdog
from shared.rabbitmq.session import backoff

ASK_LIMIT: Final = 1.0
"""Seconds that a child may take to answer its parent."""

STOP_LIMIT: Final = 20.0
"""Seconds that a child may take to end when told to; then it is killed."""

PARENT_LIMIT: Final = STOP_LIMIT + 5.0
"""Seconds that the parent may take to end when told to."""

SETTLED: Final = 60.0
"""Seconds after which a child counts as running well; its next restart is a quick one again."""

LONGEST_PAUSE: Final = 30.0
"""Seconds at most between the end of a child and its restart."""

STARTING: Final = 10.0
"""Seconds from our own start in which a child that refuses its settings ends us too."""

REFUSED: Final = 2
"""The exit status of a command that has said what is wrong, see `cli.fail`."""

# Not in the usual registry: that one counts what a child does, and a parent does none of it.
_OURS: Final = CollectorRegistry()
_RESTARTS: Final = Counter(
    "mms_process_restarts_total", "Processes that ended and were started again", registry=_OURS
)
_RUNNING: Final = Gauge("mms_processes_running", "Processes that run now", registry=_OURS)

log: Final = logging.getLogger(__name__)

Command = TypeVar("Command", bound=Callable[..., None])


def options(command: Command) -> Command:
    """Give a command `--processes` and the hidden option that makes it a child."""
    processes = click.option(
        "--processes",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="How many to run; what ends is started again. One admin port speaks for all.",
    )
    child = click.option("--child", type=click.Path(path_type=Path), hidden=True)
    return processes(child(command))


def stop_event(child: Path | None, processes: int = 1) -> asyncio.Event:
    """What tells this process to stop: the signals and, in a child, the end of its parent.

    Args:
        processes: how many it is the parent of, if more than one.
    """
    stop = cli.stop_event(watchdog.END_LIMIT if processes == 1 else PARENT_LIMIT)
    if child is not None:
        loop = asyncio.get_running_loop()

        def orphaned() -> None:
            loop.remove_reader(sys.stdin)
            watchdog.end_within(watchdog.END_LIMIT)
            stop.set()

        loop.add_reader(sys.stdin, orphaned)
    return stop


class Fleet:
    """The processes of one command, as their parent sees them.

    Args:
        count: how many.
        host: of the admin port.
        port: the admin port.
    """

    def __init__(self, count: int, host: str, port: int) -> None:
        self._count = count
        self._address = host, port
        self._running: set[int] = set()
        self._began = time.monotonic()
        self._stopping = False

    async def run(self, stop: asyncio.Event) -> None:
        """Keep all of them running until `stop` is set; return when all have ended.

        Raises:
            SettingsError: the admin port cannot be used, or a child refused its settings at once.
        """
        with tempfile.TemporaryDirectory(prefix="mms-") as folder:
            sockets = [Path(folder, str(number)) for number in range(self._count)]
            admin = web.AppRunner(self._application(sockets), access_log=None)
            try:
                await admin_server.listen(admin, *self._address, "MMS_ADMIN_PORT")
                log.info("%d processes, pid %d", self._count, os.getpid())
                async with asyncio.TaskGroup() as tasks:
                    keepers = [tasks.create_task(self._keep(*each)) for each in enumerate(sockets)]
                    await stop.wait()
                    log.info("stopping %d processes", len(self._running))
                    self._stopping = True
                    for keeper in keepers:
                        keeper.cancel()
            finally:
                await admin.cleanup()
        log.info("all have stopped")

    async def _keep(self, number: int, socket: Path) -> None:
        attempt = 0
        while True:
            began = time.monotonic()
            status = await self._life(number, socket)
            if status == REFUSED and time.monotonic() - self._began < STARTING:
                raise SettingsError(f"process {number} ended at once; it has said why")
            log.warning("process %d ended with status %d; starting it again", number, status)
            _RESTARTS.inc()
            attempt = 0 if time.monotonic() - began > SETTLED else attempt + 1
            await backoff(attempt, longest=LONGEST_PAUSE)

    async def _life(self, number: int, socket: Path) -> int:
        """One child from its start to its end, which comes at the latest when we are cancelled."""
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, sys.argv[0], "--child", socket), stdin=asyncio.subprocess.PIPE
        )
        self._running.add(number)
        try:
            return await child.wait()
        finally:
            await _end(child)
            self._running.discard(number)

    def _application(self, sockets: Sequence[Path]) -> web.Application:
        async def healthz(_request: web.Request) -> web.Response:
            return web.Response(text="ok\n")

        async def readyz(_request: web.Request) -> web.Response:
            answers = await _ask_all(sockets, "/readyz")
            ready = not self._stopping and any(answer.ok for answer in answers)
            text = "".join(
                f"process {number}: {line}\n"
                for number, answer in enumerate(answers)
                for line in answer.text.splitlines()
            )
            return web.Response(text=text, status=200 if ready else 503)

        async def metrics(_request: web.Request) -> web.Response:
            _RUNNING.set(len(self._running))
            answers = await _ask_all(sockets, "/metrics")
            body = generate_latest(_OURS) + generate_latest(_Merged(answers))
            return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

        app = web.Application()
        for path, handler in (("/healthz", healthz), ("/readyz", readyz), ("/metrics", metrics)):
            app.router.add_get(path, handler)
        return app


async def _end(child: asyncio.subprocess.Process) -> None:
    """Stop a child that may run still, gently for `STOP_LIMIT`."""
    with contextlib.suppress(ProcessLookupError):
        child.terminate()
        try:
            async with asyncio.timeout(STOP_LIMIT):
                await child.wait()
        except TimeoutError:
            child.kill()
            await child.wait()


class _Answer(NamedTuple):
    """A child's answer; the text says what is wrong when there was none."""

    ok: bool
    text: str


async def _ask_all(sockets: Sequence[Path], path: str) -> list[_Answer]:
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(_ask(socket, path)) for socket in sockets]
    return [each.result() for each in asked]


async def _ask(socket: Path, path: str) -> _Answer:
    connector = aiohttp.UnixConnector(str(socket))
    timeout = aiohttp.ClientTimeout(total=ASK_LIMIT)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.get(f"http://child{path}") as answer,
        ):
            return _Answer(answer.ok, await answer.text())
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return _Answer(ok=False, text=f"process: not ready: no answer ({type(error).__name__})")


class _Merged(Collector):
    """What the children count, each sample with the label `process` more."""

    def __init__(self, answers: Sequence[_Answer]) -> None:
        self._answers = answers

    def collect(self) -> Iterator[Metric]:
        merged: dict[str, Metric] = {}
        for number, answer in enumerate(self._answers):
            if answer.ok:
                for family in text_string_to_metric_families(answer.text):
                    into = merged.setdefault(
                        family.name, Metric(family.name, family.documentation, family.type)
                    )
                    into.samples += [
                        sample._replace(labels={"process": str(number), **sample.labels})
                        for sample in family.samples
                    ]
        yield from merged.values()
