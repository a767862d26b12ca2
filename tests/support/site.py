"""A private installation to break: servers, processes, load, and the check of the result.

The simulated provider sends the load in the background at a steady rate, low enough that a fault
shows its effect. Everything is real: servers, processes, signals, sockets.
"""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import aio_pika
import msgspec
import redis.asyncio

from deploy.local.ports import free_port
from deploy.local.servers import RabbitMQ, Redis
from deploy.local.services import Service, command
from ingest.simulate import lifecycles, provider, verify
from ingest.simulate.ledger import Ledger
from ingest.simulate.options import Options
from shared.rabbitmq import topology
from shared.settings.settings import Settings
from tests.support.processes import environment
from tests.support.topology import delete_topology

T = TypeVar("T")

RATE = 300.0
"""POSTs a second."""

RESEND_AFTER = 3.0
"""Seconds; the provider's are 300."""

SETTLE = 90.0
"""Seconds that everything may take to arrive once the load has ended."""

# The kernel kills a server when the thread that started it ends, so that no server is left behind.
# This thread lives as long as the tests.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="starter")


async def blocking(call: Callable[..., T], *arguments: object) -> T:
    """Run a blocking call that starts or stops something, while the load continues."""
    return await asyncio.get_running_loop().run_in_executor(_starter, call, *arguments)


class Row(NamedTuple):
    """The result of one fault.

    Attributes:
        recovered: postbacks answered 200 during the fault and in the state at the end.
        longest: seconds of the longest response time.
        findings: the findings of `lost` and `unexpected`.
        late: requests that a running process did not answer within 5 s.
    """

    fault: str
    sent: int
    answered: int
    lost: int
    recovered: int
    duplicated: int
    unexpected: int
    longest: float
    late: int
    findings: list[str]


class Site:
    """Servers for all tests, and the processes and the load of one test."""

    def __init__(self, directory: Path, rabbit: RabbitMQ, state: Redis) -> None:
        self.directory = directory
        self.rabbit = rabbit
        self.redis = state
        self.settings = Settings(
            amqp_url=rabbit.url,
            redis_url=state.url,
            ingest_port=free_port(),
            spool_path=str(directory / "spool.db"),
        )
        self._started: list[Service] = []

    def change(self, **changes: Any) -> None:
        """Change the settings of processes that are started later."""
        self.settings = msgspec.structs.replace(self.settings, **changes)

    async def ingest(self, **changes: Any) -> Service:
        """Start an ingress and wait until it is ready."""
        service = self._service("mms-ingest", changes)
        await blocking(service.start)
        return service

    async def worker(self, **changes: Any) -> Service:
        """Start a worker and wait until it is ready."""
        service = self._service("mms-worker", changes)
        await blocking(service.start)
        return service

    async def slow_ingest(self, seconds: float) -> Service:
        """Start an ingress whose spool takes so many seconds more for each write."""
        service = self._service("python", {}, "-m", "tests.support.slow_spool", str(seconds))
        await blocking(service.start)
        return service

    async def worker_that_dies(self, step: str, window: int) -> Service:
        """Start a worker that kills itself (SIGKILL) at a step of its n-th window."""
        service = self._service("python", {}, "-m", "tests.support.dying", step, str(window))
        await blocking(service.launch)
        return service

    def _service(self, name: str, changes: dict[str, Any], *arguments: str) -> Service:
        settings = msgspec.structs.replace(self.settings, **changes)
        service = Service(
            name,
            settings=environment(settings),
            admin_port=free_port(),
            log_path=self.directory / f"{len(self._started)}-{name}.log",
            arguments=arguments,
        )
        self._started.append(service)
        return service

    def admin(self, *arguments: str) -> str:
        """Run `mms-admin` and return what it prints; it must succeed."""
        done = subprocess.run(
            (command("mms-admin"), *arguments),
            env=os.environ | environment(self.settings),
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def mount(self, where: Path, size: str) -> None:
        """Mount a small file system; needs root."""
        subprocess.run(
            ("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(where)), check=True
        )

    def unmount(self, where: Path) -> None:
        subprocess.run(("umount", str(where)), check=True)

    async def dead(self) -> int:
        """The number of dead letters."""
        async with await aio_pika.connect(self.rabbit.url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(topology.DEAD, passive=True)
            return queue.declaration_result.message_count or 0

    async def clear(self) -> None:
        """Remove all queues and keys, and restart Redis with its configuration."""
        await blocking(self.rabbit.start)
        await blocking(self.redis.kill)  # it forgets settings that a test changed
        await blocking(self.redis.start)
        await delete_topology(self.rabbit.url)
        async with self.state() as state:
            await state.flushall()

    async def stop(self) -> None:
        """Stop the processes that were started here, not the servers."""
        for child in reversed(self._started):
            await blocking(child.kill)
        self._started.clear()

    @contextlib.asynccontextmanager
    async def state(self) -> AsyncIterator["redis.asyncio.Redis"]:
        """A client of the state's Redis."""
        async with redis.asyncio.Redis.from_url(self.redis.url, socket_timeout=None) as client:
            yield client

    @contextlib.asynccontextmanager
    async def load(self, *ports: int, rate: float = RATE) -> AsyncIterator["Load"]:
        """Postbacks at a steady rate for as long as the context lasts; two seconds before it too.

        Args:
            ports: of the ingresses, which take turns; the settings' when none is given.
        """
        load = Load(self, ports or (self.settings.ingest_port,), rate)
        async with asyncio.TaskGroup() as group:
            group.create_task(load.send())
            try:
                await asyncio.sleep(2.0)
                yield load
                await asyncio.sleep(2.0)
            finally:
                load.stop()


class Load:
    """The traffic of a test, and its check."""

    def __init__(self, site: Site, ports: tuple[int, ...], rate: float) -> None:
        self._site = site
        self._urls = [f"http://127.0.0.1:{port}/postbacks" for port in ports]
        self._options = Options(
            rate=rate, resend_after=RESEND_AFTER, duplicates=0.05, shuffle=True, concurrency=128
        )
        self.messages = lifecycles.generate(round(rate * 60))
        self.ledger = Ledger(self.messages.postbacks)
        self._stopping = asyncio.Event()
        self._before = 0
        self._during = 0

    async def send(self) -> None:
        """Send until `stop` is called."""
        await provider.send(
            self._urls, self.messages, self._options, ledger=self.ledger, stop=self._stopping
        )

    def stop(self) -> None:
        self._stopping.set()

    @contextlib.contextmanager
    def fault(self) -> Iterator[None]:
        """Count the postbacks that are answered 200 during a fault, as `recovered`."""
        before = self.ledger.answered
        yield
        self._during += self.ledger.answered - before

    async def verdict(self, fault: str, **changes: Any) -> Row:
        """Wait until everything has arrived, and count."""
        settings = msgspec.structs.replace(self._site.settings, **changes)
        report = await verify.verify(settings, self.messages, self.ledger, settle=SETTLE)
        lost = len(report.lost) + len(report.wrong)
        return Row(
            fault=fault,
            sent=self.ledger.sent,
            answered=self.ledger.answered,
            lost=lost,
            recovered=max(0, self._during - lost),
            duplicated=report.duplicated_events,
            unexpected=len(report.unexpected),
            longest=max(self.ledger.times, default=0.0),
            late=self.ledger.late,
            findings=[str(finding) for finding in report.lost + report.wrong + report.unexpected],
        )
