"""`mms-admin topology upgrade`: `mms.dead` is created again, and its dead letters stay."""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import ParamSpec, TypeVar

import aio_pika
import pytest
from aiormq.exceptions import AMQPError

from shared.errors import (
    DeadLettersInUseError,
    TopologyConflictError,
    UpgradeError,
)
from shared.rabbitmq import topology
from shared.rabbitmq.errors import connection_errors
from shared.rabbitmq.reader import Reader
from shared.rabbitmq.session import Session, open_session
from shared.settings.settings import Settings
from tests.support import running
from tests.support.admin import admin
from tests.support.old_dead import declare_old, publish, taken
from workers.admin.dead.lock import lock
from workers.admin.upgrade import calls, move
from workers.admin.upgrade.steps import SPARE, upgrade

P = ParamSpec("P")
T = TypeVar("T")

COUNT = 40


async def is_whole(settings: Settings) -> None:
    """The topology is that of this release, and nothing of the upgrade is left."""
    session = await open_session(settings, name="test")
    await session.close()
    async with running.channel(settings) as channel:
        with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
            await channel.declare_queue(SPARE, passive=True)


def bodies(count: int = COUNT) -> list[bytes]:
    return [b"dead %d" % number for number in range(count)]


@pytest.fixture
async def old(settings: Settings) -> AsyncIterator[Settings]:
    """A RabbitMQ with an old `mms.dead` and dead letters in it."""
    async with running.channel(settings) as channel:
        await channel.queue_delete(SPARE)
        await declare_old(channel, settings)
        await publish(channel, *bodies())
    yield settings
    async with running.channel(settings) as channel:
        await channel.queue_delete(SPARE)


async def test_the_conflict_names_the_command_that_resolves_it(old: Settings) -> None:
    with pytest.raises(TopologyConflictError, match="mms-admin topology upgrade"):
        await open_session(old, name="test")
    ran = await admin(old, "topology", "upgrade", "--dry-run")
    assert (ran.status, f"{COUNT} dead letters" in ran.err) == (0, True)
    with pytest.raises(TopologyConflictError):
        await open_session(old, name="test")
    assert (await admin(old, "topology", "upgrade")).status == 0
    again = await admin(old, "topology", "upgrade")
    assert (again.status, "nothing to do" in again.err) == (0, True)
    await is_whole(old)
    assert await taken(old) == Counter(bodies())


class Killer:
    """Ends a coroutine after its second call to RabbitMQ, the next one five calls later."""

    def __init__(self) -> None:
        self.dies_at = -3
        self._left = -1

    async def kills(self, coroutine: Coroutine[None, None, object]) -> bool:
        """Run it; False if it ended by itself before that call."""
        self.dies_at += 5
        self._left = self.dies_at
        try:
            await coroutine
        except KilledError:
            return True
        finally:
            self._left = -1
        return False

    def after(self, call: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        async def wrapped(*args: P.args, **named: P.kwargs) -> T:
            result = await call(*args, **named)
            self._count()
            return result

        return wrapped

    @contextlib.contextmanager
    def connection_errors(self) -> Iterator[None]:
        with connection_errors():
            yield
        self._count()

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise KilledError


class KilledError(Exception):
    """The process ends in the middle of its work."""


@pytest.mark.timeout(300)  # many upgrades
async def test_interrupted_at_any_point_and_run_again(
    old: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is lost after a call to RabbitMQ; which call differs from run to run."""
    killer = Killer()
    monkeypatch.setattr(calls, "connection_errors", killer.connection_errors)
    monkeypatch.setattr(Reader, "acknowledge", killer.after(Reader.acknowledge))
    monkeypatch.setattr(Session, "publish_all", killer.after(Session.publish_all))
    monkeypatch.setattr(move, "QUIET_LIMIT", 0.05)
    monkeypatch.setattr(move, "WINDOW", 16)
    sent = set(bodies())
    while True:
        if not await killer.kills(upgrade(old, lambda _: None)):
            break
        async with running.channel(old) as channel:
            late = b"late %d" % killer.dies_at
            sent.add(late)
            await publish(channel, late)
        await upgrade(old, lambda _: None)
        await is_whole(old)
        assert set(await taken(old)) == sent
        async with running.channel(old) as channel:
            await channel.queue_delete(topology.DEAD)
            await declare_old(channel, old)
            await publish(channel, *sent)
    assert killer.dies_at > 20, killer.dies_at


async def test_dead_letters_keep_coming_and_an_old_process_binds_again(
    old: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(move, "QUIET_LIMIT", 0.1)
    sent: list[bytes] = bodies()
    done = asyncio.Event()

    async def worker() -> None:
        async with running.channel(old) as channel:
            for number in itertools.count():
                body = b"new %d" % number
                await publish(channel, body)
                sent.append(body)
                await asyncio.sleep(0.002)
                if done.is_set():
                    return

    async def old_process() -> None:
        while not done.is_set():
            with contextlib.suppress(AMQPError):  # raised while the queue is being deleted
                async with running.channel(old) as channel:
                    await declare_old(channel, old)
            await asyncio.sleep(0.5)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(worker())
        tasks.create_task(old_process())
        await upgrade(old, lambda _: None)
        done.set()
    await upgrade(old, lambda _: None)  # an old process may have declared the queue last
    await is_whole(old)
    assert set(await taken(old)) == set(sent)


async def test_it_waits_until_other_consumers_stop(
    old: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An mms-admin of an earlier release consumes without the lock."""
    monkeypatch.setattr(move, "QUIET_LIMIT", 0.1)
    monkeypatch.setattr(move, "OTHERS_LIMIT", 0.5)
    session = await open_session(old, name="test", prefetch=10, declaring=False)
    reader = Reader(session, topology.DEAD)
    await reader.start()
    assert await reader.next(5.0) is not None
    with pytest.raises(UpgradeError, match="another process consumes"):
        await upgrade(old, lambda _: None)
    await session.close()
    await upgrade(old, lambda _: None)
    assert await taken(old) == Counter(bodies())


async def test_one_at_a_time(old: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.admin.dead.lock.LOCK_LIMIT", 0.5)
    session = await open_session(old, name="test", declaring=False)
    await lock(session)
    with pytest.raises(DeadLettersInUseError):
        await upgrade(old, lambda _: None)
    await session.close()
