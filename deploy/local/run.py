"""`make run`: everything on this machine, live, until Ctrl-C.

Starts a private RabbitMQ and a private Redis (or uses those that `MMS_AMQP_URL` and
`MMS_REDIS_URL` name), one ingress and one worker, says where to POST, and shows events as they
come. Restarts what ends by itself. All that is kept lies in one folder; a second run there finds
its data and its ports again.
"""

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import shlex
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from deploy.local.child import Child, StartError
from deploy.local.ports import HOST, Ports
from deploy.local.servers import RabbitMQ, Redis
from deploy.local.services import Service, command
from deploy.local.watch import watch
from ingest.guard import PATH
from shared import cli, settings
from shared.errors import PostbacksError
from shared.settings import Settings

SETTLED: Final = 60.0
"""Seconds after which a child counts as running well; its next restart is a quick one again."""

LONGEST_PAUSE: Final = 30.0
"""Seconds at most between the end of a child and its restart."""

DEMO: Final = ("--count", "200", "--rate", "20", "--format", "mixed", "--duplicates", "0.1")

_STARTED: Final = time.monotonic()


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="make run", description=__doc__)
    parser.add_argument("--var", type=Path, default=Path("var"), help="folder for all that is kept")
    parser.add_argument("--demo", action="store_true", help="also send simulated traffic")
    arguments = parser.parse_args()
    try:
        asyncio.run(_main(arguments.var, demo=arguments.demo))
    except* PostbacksError as errors:
        _say(f"\nNot running: {_first(errors)}")
        raise SystemExit(1) from None


async def _main(var: Path, *, demo: bool) -> None:
    stop = cli.stop_event()
    with _only_one(var):
        local = _plan(var, settings.load(), os.environ)
        run = Run(local, var, demo=demo)
        try:
            async with asyncio.TaskGroup() as tasks:
                work = tasks.create_task(run.work())
                await stop.wait()
                work.cancel()
        finally:
            await run.stop()


class Local(NamedTuple):
    """What runs here.

    Attributes:
        settings: those that the services get.
        environment: the part of them that we chose, as `MMS_*` variables.
        servers: those that we start; they are stopped last, in this order.
        services: the ingress and the worker.
    """

    settings: Settings
    environment: Mapping[str, str]
    servers: Sequence[RabbitMQ | Redis]
    services: Sequence[Service]


def _plan(var: Path, given: Settings, environ: Mapping[str, str]) -> Local:
    """Decide what to start and on which ports; what the settings say is left as it is."""
    ports = Ports(var / "ports.json")
    chosen: dict[str, str | int] = {}
    servers: list[RabbitMQ | Redis] = []

    def is_given(name: str) -> bool:
        said = f"MMS_{name.upper()}" in environ
        return said or getattr(given, name) != getattr(Settings(), name)

    if not is_given("amqp_url"):
        port, dist_port = ports.take("amqp", 5672), ports.take("rabbitmq-distribution", 25672)
        rabbitmq = RabbitMQ(var / "rabbitmq", port=port, dist_port=dist_port)
        chosen["amqp_url"] = rabbitmq.url
        servers.append(rabbitmq)
    if not is_given("redis_url"):
        redis = Redis(var / "redis", port=ports.take("redis", 6379))
        chosen["redis_url"] = redis.url
        servers.append(redis)
    if not is_given("ingest_port"):
        chosen["ingest_port"] = ports.take("ingest", 8080)
    if not is_given("spool_path"):
        chosen["spool_path"] = str(var / "spool.db")
    environment = {f"MMS_{name.upper()}": str(value) for name, value in chosen.items()}
    services = [
        Service(
            name,
            settings=environment,
            admin_port=ports.take(f"{name}-admin", usual),
            log_path=var / "log" / f"{name}.log",
        )
        for name, usual in (("mms-ingest", 9090), ("mms-worker", 9091))
    ]
    return Local(msgspec.structs.replace(given, **chosen), environment, servers, services)


class Run:
    """From the first start to the last stop."""

    def __init__(self, local: Local, var: Path, *, demo: bool) -> None:
        self._local = local
        self._var = var
        self._demo = demo
        self._demo_child: Child | None = None
        self._ended: list[asyncio.Event] = []
        sources = local.settings.sources
        self._source = "default" if "default" in sources else sources[0]
        self._url = _url(local.settings)

    async def work(self) -> None:
        """Start everything, then watch it for ever.

        Raises:
            StartError: something did not start; the rest may run.
        """
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._child_ended)
        self._write_env()
        for children in (self._local.servers, self._local.services):
            async with asyncio.TaskGroup() as starting:
                for child in children:
                    starting.create_task(_start(child))
        async with asyncio.TaskGroup() as watching:
            for child in (*self._local.servers, *self._local.services):
                watching.create_task(self._keep(child))
            subscribed = asyncio.Event()
            watching.create_task(watch(self._local.settings, _say, subscribed))
            await subscribed.wait()
            self._greet()
            if self._demo:
                watching.create_task(self._send_demo())

    async def stop(self) -> None:
        """Stop all that was started: first what takes requests, last what keeps the data."""
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)
        _say("")
        children = (self._demo_child, *self._local.services, *self._local.servers)
        for child in children:
            if child is not None and child.pid is not None:
                if child.is_alive():
                    _progress(f"stopping {child.name}")
                await asyncio.to_thread(child.stop)
        _progress(f"stopped; the data is in {self._var}")

    async def _keep(self, child: Child) -> None:
        pause = 1.0
        while True:
            started = time.monotonic()
            await self._end_of(child)
            if time.monotonic() - started > SETTLED:
                pause = 1.0
            _say(f"{child.name} has ended, see {child.log_path}; starting again in {pause:.0f} s")
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
            try:
                await _start(child)
            except StartError as error:
                _say(str(error))

    async def _end_of(self, child: Child) -> None:
        ended = asyncio.Event()
        self._ended.append(ended)
        try:
            while child.is_alive():
                await ended.wait()
                ended.clear()
        finally:
            self._ended.remove(ended)

    def _child_ended(self) -> None:
        for ended in self._ended:
            ended.set()

    async def _send_demo(self) -> None:
        self._demo_child = Child(
            "mms-simulate",
            (command("mms-simulate"), self._url, "--source", self._source, *DEMO),
            log_path=self._var / "log" / "mms-simulate.log",
            env=os.environ | self._local.environment,
        )
        try:
            await asyncio.to_thread(self._demo_child.start)
        except StartError as error:
            _say(str(error))
            return
        await self._end_of(self._demo_child)
        _say(f"\nThe simulated traffic has ended:\n\n{self._demo_child.log().rstrip()}\n")

    def _write_env(self) -> None:
        lines = [f"export {k}={shlex.quote(v)}\n" for k, v in self._local.environment.items()]
        (self._var / "env").write_text("".join(lines))

    def _greet(self) -> None:
        now = datetime.now(UTC)
        tracking_id = f"try-{now:%Y%m%d-%H%M%S}"
        ready = " and ".join(f"{HOST}:{service.admin_port}" for service in self._local.services)
        admin = f"{os.path.relpath(command('mms-admin'))} show {tracking_id}"
        if not _usual(self._local.settings):
            admin = f". {_sourced(self._var / 'env')}; {admin}"
        url = self._url if self._source == "default" else f"{self._url}/{self._source}"
        _say(
            f"\nReady. Postbacks go to {url} (health and metrics: {ready}).\n"
            f"From another terminal, send one, and look at what became of it:\n\n"
            f"  {_curl(url, tracking_id, now)}\n"
            f"  {admin}\n\n"
            f"Logs are in {self._var}. Ctrl-C stops everything. Events as they come:\n"
        )


async def _start(child: Child) -> None:
    where = f" on {HOST}:{child.port}" if isinstance(child, RabbitMQ | Redis) else ""
    _progress(f"starting {child.name}{where}")
    await asyncio.to_thread(child.start)
    _progress(f"{child.name} is ready")


@contextlib.contextmanager
def _only_one(var: Path) -> Iterator[None]:
    """Keep a second run out of this folder.

    Raises:
        StartError: there is one already.
    """
    var.mkdir(parents=True, exist_ok=True)
    with (var / "run.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StartError(
                f"`make run` is already running in {var}; stop it, or give this one another folder"
                " (make run VAR=<folder>)"
            ) from error
        yield


def _url(settings: Settings) -> str:
    """Where the ingress takes postbacks of the source `default`."""
    host = HOST if settings.ingest_host in {"0.0.0.0", "::"} else settings.ingest_host  # noqa: S104
    return f"http://{host}:{settings.ingest_port}{PATH}"


def _curl(url: str, tracking_id: str, now: datetime) -> str:
    """A line to paste: the handset has the message. Its tracking-id is a new one in each run."""
    postback = {
        "origin": "MMS_MT",
        "code": "N102",
        "sent-as": "MMS",
        "status": "Delivered",
        "mms-id": "35674",
        "from": "28444",
        "to": "12065550123",
        "tracking-id": tracking_id,
        "operator-id": "31003",
        "operator-name": "Sprint",
        "timestamp": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "handset": "Nokia 6230",
    }
    return shlex.join(
        ["curl", "-i", url, "-H", "Content-Type: application/json", "-d", json.dumps(postback)]
    )


def _sourced(path: Path) -> str:
    """A path as the shell's `.` wants it: with a slash, or it is looked for in PATH."""
    text = str(path)
    return shlex.quote(text if "/" in text else f"./{text}")


def _usual(settings: Settings) -> bool:
    usual = Settings()
    return (settings.amqp_url, settings.redis_url) == (usual.amqp_url, usual.redis_url)


def _first(errors: BaseExceptionGroup[PostbacksError] | PostbacksError) -> PostbacksError:
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    return errors


def _progress(text: str) -> None:
    _say(f"{time.monotonic() - _STARTED:6.1f} s  {text}")


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone; then there is still much to stop
        print(text, flush=True)


if __name__ == "__main__":
    main()
