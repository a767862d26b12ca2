"""Private servers: they start for the first test that needs them, and are empty for each test."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from deploy.local.child import running
from deploy.local.ports import draw_from, free_port
from deploy.local.servers import RabbitMQ, Redis
from shared.settings.settings import Settings
from shared.settings.units import Bytes
from tests.support.port_ranges import ports_of
from tests.support.processes import Processes
from tests.support.scheduling import Scheduling
from tests.support.topology import delete_topology

SMALL = Bytes(64 * 2**20)


def pytest_configure() -> None:
    """Each process of pytest-xdist draws ports of its own: it could not see those drawn by others,
    and a test would talk to the servers of another one."""
    if process := os.environ.get("PYTEST_XDIST_WORKER"):
        draw_from(ports_of(int(process.removeprefix("gw"))))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """Spread the tests over processes; pytest-xdist calls this."""
    return Scheduling(config, log)


@pytest.fixture(scope="session")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """A RabbitMQ for the whole session; the fixture `settings` repairs it for the next test."""
    server = RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    with running(server):
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A Redis for the whole session."""
    server = Redis(tmp_path_factory.mktemp("redis"))
    with running(server):
        yield server


@pytest.fixture
async def settings(rabbit: RabbitMQ, redis_server: Redis, tmp_path: Path) -> Settings:
    """Settings with the session's servers, which run and are empty."""
    for server in (rabbit, redis_server):
        server.resume()
        server.start()
    await delete_topology(rabbit.url)
    assert redis_server.ask(b"FLUSHALL\r\n").startswith(b"+OK")
    return Settings(
        amqp_url=rabbit.url,
        redis_url=redis_server.url,
        ingest_port=free_port(),
        admin_port=free_port(),
        spool_path=str(tmp_path / "spool.db"),
        spool_max_bytes=SMALL,
        queue_max_bytes=SMALL,
        archive_max_bytes=SMALL,
    )


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts our commands as real processes; stops those that a test leaves."""
    started = Processes(tmp_path)
    yield started
    started.stop()


@pytest.fixture
def fresh_rabbit(tmp_path: Path) -> Iterator[Callable[..., RabbitMQ]]:
    """Starts a RabbitMQ for one test; takes the arguments of `RabbitMQ` without the directory."""
    servers: list[RabbitMQ] = []

    def make(**options: Any) -> RabbitMQ:
        server = RabbitMQ(tmp_path / f"rabbitmq-{len(servers)}", **options)
        servers.append(server)
        server.start()
        return server

    yield make
    for server in reversed(servers):
        server.stop()


@pytest.fixture
def fresh_redis(tmp_path: Path) -> Iterator[Callable[..., Redis]]:
    """Starts a Redis for one test; takes the arguments of `Redis` without the directory."""
    servers: list[Redis] = []

    def make(**options: Any) -> Redis:
        server = Redis(tmp_path / f"redis-{len(servers)}", **options)
        servers.append(server)
        server.start()
        return server

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
async def amqp(settings: Settings) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    """A channel with confirms to the session's RabbitMQ, for the test itself."""
    async with await aio_pika.connect(settings.amqp_url) as connection:
        yield await connection.channel(publisher_confirms=True, on_return_raises=True)
