"""The installation of the benchmark: private servers, our processes, the peers.

Everything listens on 127.0.0.1, has its data in one folder and ends with this process.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

import aiormq
from redis import Redis as RedisClient

from deploy.local.child import Child, running
from deploy.local.ports import HOST, free_port
from deploy.local.servers import RabbitMQ, Redis
from deploy.local.services import Service
from shared.rabbitmq import topology
from shared.rabbitmq.session import Session, open_session
from shared.settings.load import load_settings
from shared.settings.settings import Settings
from tests.bench.peers.common import QUEUES

ROOT: Final = Path(__file__).parents[2]

_STARTED: Final = time.monotonic()
DEFAULTS: Final[Mapping[str, str]] = MappingProxyType({})


def say(text: str) -> None:
    """One line of progress."""
    print(f"{time.monotonic() - _STARTED:6.1f} s  {text}", flush=True)  # noqa: T201


class Peer(Child):
    """A process of a peer. It is ready when its port answers or, without a port, when its log has
    `mark`."""

    stop_limit = 5.0

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log_path: Path,
        env: Mapping[str, str],
        port: int = 0,
        mark: str = "",
    ) -> None:
        super().__init__(name, command, log_path=log_path, env=env)
        self.port = port
        self._mark = mark

    def ready(self) -> bool:
        if not self.port:
            return self._mark in self.log()
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), 1):
            return True
        return False


class Site:
    """The servers, and the processes that use them.

    Args:
        directory: for data and logs.
        peers_python: a Python with the packages of the peers.
    """

    def __init__(self, directory: Path, peers_python: Path) -> None:
        self.directory = directory
        self.rabbit = RabbitMQ(directory / "rabbitmq")
        self.redis = Redis(directory / "redis")
        self.peers_python = peers_python
        self._count = 0

    @property
    def environment(self) -> dict[str, str]:
        """The addresses of the servers, for our processes and the peers."""
        return {"MMS_AMQP_URL": self.rabbit.url, "MMS_REDIS_URL": self.redis.url}

    @property
    def settings(self) -> Settings:
        return load_settings(self.environment)

    @property
    def redis_client(self) -> "RedisClient":
        return RedisClient.from_url(self.redis.url)

    def ingest(self, settings: Mapping[str, str] = DEFAULTS) -> tuple[Service, int]:
        """One `mms-ingest`, not started, and its port.

        Args:
            settings: those that differ from the defaults.
        """
        port = free_port()
        number = self._next()
        ours = dict(settings) | {
            "MMS_INGEST_PORT": str(port),
            "MMS_SPOOL_PATH": str(self.directory / f"spool-{number}.db"),
        }
        return self._service("mms-ingest", ours, number), port

    def worker(self, settings: Mapping[str, str] = DEFAULTS) -> Service:
        """One `mms-worker`, not started; for `settings` see `ingest`."""
        return self._service("mms-worker", settings, self._next())

    def peer(self, module: str, *arguments: str) -> Peer:
        """A peer that is an HTTP server, not started."""
        port = free_port()
        command = ("-m", f"tests.bench.peers.{module}", "--port", str(port), *arguments)
        return self._peer(module, command, port=port)

    def faststream_worker(self) -> Peer:
        """FastStream's worker; not started."""
        return self._peer(
            "faststream-worker", ("-m", "tests.bench.peers.faststream_worker"), mark="ready\n"
        )

    def celery_worker(self, concurrency: int = 1) -> Peer:
        """Celery's worker with so many worker processes and one main process; not started."""
        return self._peer(
            "celery-worker",
            (
                *("-m", "celery", "-A", "tests.bench.peers.celery_app", "worker"),
                *("--concurrency", str(concurrency), "--loglevel", "INFO"),
                *("--without-gossip", "--without-mingle", "--without-heartbeat"),
            ),
            mark=" ready.",
        )

    def peer_command(self, module: str) -> tuple[list[str], dict[str, str]]:
        """Command and environment of a peer's helper module."""
        command = [str(self.peers_python), "-m", f"tests.bench.peers.{module}"]
        return command, self._peer_environment()

    def log_path(self, name: str) -> Path:
        """The log of one more process."""
        return self.directory / "log" / f"{name}-{self._next()}.log"

    def reset(self) -> None:
        """Empty the queues and Redis, and declare the topology."""
        asyncio.run(self._reset())
        self.redis_client.flushall()

    def session(self) -> "contextlib.AbstractAsyncContextManager[Session]":
        """A session of our own to RabbitMQ."""
        return _session(self.settings)

    async def _reset(self) -> None:
        async with self.session() as session:
            for queue in (topology.STATE_QUEUE, topology.DEAD, *QUEUES):
                channel = await session.connection.channel()
                try:
                    await (await channel.get_underlay_channel()).queue_purge(queue)
                except aiormq.exceptions.ChannelNotFoundEntity:
                    continue
                await channel.close()

    def _service(self, name: str, ours: Mapping[str, str], number: int) -> Service:
        return Service(
            name,
            settings=self.environment | dict(ours),
            admin_port=free_port(),
            log_path=self.directory / "log" / f"{name}-{number}.log",
        )

    def _peer(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        port: int = 0,
        mark: str = "",
    ) -> Peer:
        return Peer(
            name,
            (str(self.peers_python), *arguments),
            log_path=self.log_path(name),
            env=self._peer_environment(),
            port=port,
            mark=mark,
        )

    def _peer_environment(self) -> dict[str, str]:
        return dict(os.environ) | self.environment | {"PYTHONPATH": str(ROOT)}

    def _next(self) -> int:
        self._count += 1
        return self._count


@contextlib.asynccontextmanager
async def _session(settings: Settings) -> AsyncIterator[Session]:
    session = await open_session(settings, name="bench")
    try:
        yield session
    finally:
        await session.close()


@contextlib.contextmanager
def open_site(directory: Path, peers_python: Path) -> Iterator[Site]:
    """A site with its servers running; its folder is removed at the end."""
    directory.mkdir(parents=True, exist_ok=True)
    site = Site(directory, peers_python)
    try:
        say("starting a private RabbitMQ and a private Redis")
        with running(site.rabbit, site.redis):
            yield site
    finally:
        shutil.rmtree(directory, ignore_errors=True)
