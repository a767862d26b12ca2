"""The real ingress and the real worker in the event loop of a test."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import TypeVar

import aio_pika
import aiohttp
import msgspec

from deploy.local.ports import free_port
from ingest.main import Ingest
from shared.postback.dead_letter import DeadLetter, decode_dead_letter
from shared.postback.event import Event, decode_event
from shared.rabbitmq.topology import DEAD, EVENTS
from shared.settings.settings import Settings
from workers.main import WorkerProcess

T = TypeVar("T")
TIME_LIMIT = 20.0


@contextlib.asynccontextmanager
async def _running(
    run: Callable[[asyncio.Event], Coroutine[None, None, None]], url: str, page: str = "readyz"
) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(run(stop))
        try:
            await until(lambda: answers(f"{url}/{page}"))
            yield
        finally:
            stop.set()


async def answers(url: str) -> bool:
    """Whether a page of an admin port answers 200."""
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


async def until(condition: Callable[[], Awaitable[T]], within: float = TIME_LIMIT) -> T:
    """Call a condition repeatedly until its result is true; return the result."""
    async with asyncio.timeout(within):
        while not (answer := await condition()):
            await asyncio.sleep(0.02)
        return answer


def ingest(settings: Settings) -> contextlib.AbstractAsyncContextManager[None]:
    """An ingress, ready, for as long as the context lasts."""
    return _running(Ingest(settings).run, f"http://127.0.0.1:{settings.admin_port}")


def starting_ingest(settings: Settings) -> contextlib.AbstractAsyncContextManager[None]:
    """An ingress that is up but maybe not ready."""
    return _running(Ingest(settings).run, f"http://127.0.0.1:{settings.admin_port}", "healthz")


def worker(settings: Settings) -> contextlib.AbstractAsyncContextManager[None]:
    """A worker, ready, for as long as the context lasts."""
    return _running(WorkerProcess(settings).run, f"http://127.0.0.1:{settings.admin_port}")


def beside(settings: Settings) -> Settings:
    """The same for another process, which needs an admin port of its own."""
    return msgspec.structs.replace(settings, admin_port=free_port())


async def post(settings: Settings, *bodies: bytes, source: str = "default") -> None:
    """POST bodies one after the other; each must be answered 200."""
    url = f"http://127.0.0.1:{settings.ingest_port}/postbacks/{source}"
    async with aiohttp.ClientSession() as session:
        for body in bodies:
            async with session.post(url, data=body) as answer:
                assert answer.status == 200, await answer.text()


class Subscriber:
    """A queue that is bound to `mms.events`."""

    def __init__(self, queue: aio_pika.abc.AbstractQueue) -> None:
        self._queue = queue

    async def event(self) -> Event:
        """The next event."""
        message = await until(lambda: self._queue.get(no_ack=True, fail=False))
        assert message is not None
        event = decode_event(message.body)
        assert message.message_id == event.id
        assert message.routing_key == event.routing_key
        return event

    async def events(self, count: int) -> list[Event]:
        return [await self.event() for _ in range(count)]

    async def silent(self, within: float = 0.3) -> bool:
        """Whether no event comes for a while."""
        await asyncio.sleep(within)
        return await self._queue.get(no_ack=True, fail=False) is None


@contextlib.asynccontextmanager
async def channel(settings: Settings) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    """A channel for the test itself."""
    async with (
        await aio_pika.connect(settings.amqp_url) as connection,
        connection.channel() as opened,
    ):
        yield opened


@contextlib.asynccontextmanager
async def subscriber(settings: Settings, pattern: str = "#") -> AsyncIterator[Subscriber]:
    """Subscribe to events; the exchange must be there, so start a process first."""
    async with channel(settings) as opened:
        queue = await opened.declare_queue(exclusive=True)
        await queue.bind(EVENTS, pattern)
        yield Subscriber(queue)


async def dead_letters(settings: Settings, count: int) -> list[DeadLetter]:
    """Wait for this many dead letters and take them."""
    async with channel(settings) as opened:
        queue = await opened.get_queue(DEAD)
        dead_letters: list[DeadLetter] = []
        while len(dead_letters) < count:
            message = await until(lambda: queue.get(no_ack=True, fail=False))
            assert message is not None
            dead_letters.append(decode_dead_letter(message.body, message.properties))
        return dead_letters
