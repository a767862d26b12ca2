"""A worker whose servers fail: `/readyz` is true, SIGTERM stops it, nothing is lost."""

import asyncio
import contextlib
import functools
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence

import aio_pika
import msgspec
import pytest
from aiormq.abc import DeliveredMessage

import workers.main
import workers.worker
from deploy.local.servers import RabbitMQ, Redis
from deploy.local.services import Service
from shared.postback import envelope
from shared.postback.envelope import Arrival
from shared.postback.postback import Key
from shared.rabbitmq.session import Session
from shared.rabbitmq.topology import DEAD, POSTBACKS, STATE_QUEUE
from shared.settings.settings import Settings
from tests.support import running
from tests.support.old_redis import OldRedis
from tests.support.processes import Processes, metric, until
from workers import merge
from workers.consumer import Consumer
from workers.outbox import Outbox
from workers.publish import publish_outbox
from workers.store import Store
from workers.verdicts import Merged, Received, Unmergeable

TRUTH = 2.0
"""Seconds within which `/readyz` is true."""

SLACK = 6.0
"""Seconds more for a machine that is busy with other tests; the releases before took 46 s."""

Channel = aio_pika.abc.AbstractChannel
FreshRedis = Callable[..., Redis]


async def publish(channel: Channel, *numbers: int) -> None:
    """A batch of one postback for each number."""
    exchange = await channel.get_exchange(POSTBACKS, ensure=False)
    for number in numbers:
        body = b'{"origin":"MMS_MT","code":"N102","status":"Delivered","tracking-id":"T%d"}'
        batch = envelope.encode([Arrival(1, "default", "", body % number)])
        await exchange.publish(
            aio_pika.Message(batch, delivery_mode=aio_pika.DeliveryMode.PERSISTENT), ""
        )


async def waiting(channel: Channel, queue: str) -> int:
    """Messages of a queue that nobody has."""
    declared = await channel.declare_queue(queue, passive=True)
    return declared.declaration_result.message_count or 0


async def eventually(condition: Callable[[], bool], within: float = 20.0) -> bool:
    """Whether a condition that asks a process becomes true."""
    return await asyncio.to_thread(until, condition, within)


def says(worker: Service, status: int, line: str) -> Callable[[], bool]:
    """Whether `/readyz` answers with a status and has a line that begins so."""

    def condition() -> bool:
        answered, text = worker.ask("/readyz")
        return answered == status and f"\n{line}" in f"\n{text}"

    return condition


async def all_wait(settings: Settings, count: int) -> bool:
    """Whether so many batches are in the input queue and with nobody."""
    async with running.channel(settings) as channel:
        return await waiting(channel, STATE_QUEUE) == count


@contextlib.asynccontextmanager
async def traffic(channel: Channel, published: list[int]) -> AsyncIterator[None]:
    """Batches again and again for as long as the context lasts."""

    stop = asyncio.Event()

    async def send() -> None:
        while not stop.is_set():
            await publish(channel, len(published))
            published.append(len(published))
            await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as group:
        group.create_task(send())
        try:
            yield
        finally:
            stop.set()  # a cancelled publish could arrive and not be counted


BREAK = {
    "frozen": Redis.pause,
    "killed": Redis.kill,
    "read-only": lambda redis: redis.ask(b"REPLICAOF 127.0.0.1 1\r\n"),
    "full": lambda redis: redis.ask(b"CONFIG SET maxmemory 1\r\n"),
}
MEND = {
    "frozen": Redis.resume,
    "killed": Redis.start,
    "read-only": lambda redis: redis.ask(b"REPLICAOF NO ONE\r\n"),
    "full": lambda redis: redis.ask(b"CONFIG SET maxmemory 0\r\n"),
}


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
@pytest.mark.parametrize("fault", BREAK)
async def test_readiness_follows_redis(
    settings: Settings,
    amqp: Channel,
    *,
    fresh_redis: FreshRedis,
    processes: Processes,
    fault: str,
    busy: bool,
) -> None:
    redis = fresh_redis()
    worker = await asyncio.to_thread(
        processes.start_worker, msgspec.structs.replace(settings, redis_url=redis.url)
    )
    published: list[int] = []
    async with contextlib.AsyncExitStack() as stack:
        if busy:
            await stack.enter_async_context(traffic(amqp, published))
            assert await eventually(lambda: metric(worker, "mms_worker_absorbed_total") > 0)
        await asyncio.to_thread(BREAK[fault], redis)
        assert await eventually(says(worker, 503, "redis: not ready: "), TRUTH + SLACK)
        await asyncio.to_thread(MEND[fault], redis)
        assert await eventually(says(worker, 200, "redis: ok"), TRUTH + SLACK + 2.0)
    assert await eventually(lambda: metric(worker, "mms_worker_absorbed_total") == len(published))
    assert "requeued" not in worker.log()


async def test_readiness_follows_a_frozen_rabbitmq(
    settings: Settings, rabbit: RabbitMQ, processes: Processes
) -> None:
    worker = await asyncio.to_thread(processes.start_worker, settings)
    await asyncio.to_thread(rabbit.pause)
    try:
        assert await eventually(says(worker, 503, "rabbitmq: not ready: "), TRUTH + SLACK)
    finally:
        await asyncio.to_thread(rabbit.resume)
    assert await eventually(says(worker, 200, "rabbitmq: ok"))


async def test_a_queue_that_is_gone_is_consumed_again_when_it_is_back(
    settings: Settings, amqp: Channel, processes: Processes
) -> None:
    worker = await asyncio.to_thread(processes.start_worker, settings)
    await amqp.queue_delete(STATE_QUEUE)
    assert await eventually(says(worker, 503, "consumer: not ready: "), TRUTH + SLACK)
    assert await eventually(says(worker, 200, "consumer: ok"))
    await publish(amqp, 1)
    assert await eventually(lambda: metric(worker, "mms_worker_absorbed_total") == 1)


async def test_an_old_redis_ends_the_worker(settings: Settings, processes: Processes) -> None:
    async with await asyncio.start_server(OldRedis(b"6.2.14"), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        old = msgspec.structs.replace(settings, redis_url=f"redis://127.0.0.1:{port}/0")
        worker = await asyncio.to_thread(lambda: processes.start_worker(old, wait=False))
        assert await eventually(lambda: not worker.is_alive())
    assert worker.status == 2
    assert "redis 6.2.14; mms-postbacks needs Redis 7" in worker.log()
    assert "Traceback" not in worker.log()


async def test_a_redis_that_is_replaced_by_an_old_one_ends_the_worker(
    settings: Settings, fresh_redis: FreshRedis, processes: Processes
) -> None:
    redis = fresh_redis()
    new = msgspec.structs.replace(settings, redis_url=redis.url)
    worker = await asyncio.to_thread(processes.start_worker, new)
    await asyncio.to_thread(redis.kill)
    assert await eventually(says(worker, 503, "redis: not ready: "))
    async with await asyncio.start_server(OldRedis(b"6.2.14"), "127.0.0.1", redis.port):
        assert await eventually(lambda: not worker.is_alive())
    assert worker.status == 2
    assert "needs Redis 7" in worker.log()


@pytest.mark.parametrize("frozen", [("redis",), ("rabbitmq",), ("redis", "rabbitmq")])
async def test_sigterm_ends_a_worker_whose_servers_hang(
    settings: Settings,
    amqp: Channel,
    *,
    rabbit: RabbitMQ,
    redis_server: Redis,
    processes: Processes,
    frozen: tuple[str, ...],
) -> None:
    servers = {"redis": redis_server, "rabbitmq": rabbit}
    worker = await asyncio.to_thread(processes.start_worker, settings)
    assert worker.pid is not None
    try:
        if "redis" in frozen:
            await asyncio.to_thread(redis_server.pause)
            await publish(amqp, 1, 2, 3)
            assert await eventually(lambda: "waiting for Redis" in worker.log())
        if "rabbitmq" in frozen:
            await asyncio.to_thread(rabbit.pause)
        os.kill(worker.pid, signal.SIGTERM)
        assert await eventually(lambda: not worker.is_alive(), 25.0)
    finally:
        for name in frozen:
            await asyncio.to_thread(servers[name].resume)
    assert worker.status == 0
    assert "Traceback" not in worker.log()
    if "redis" in frozen:
        await running.until(lambda: all_wait(settings, 3))


async def test_a_worker_that_stops_requeues_a_window_that_takes_too_long(
    settings: Settings, amqp: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def hang(*_: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(workers.main, "SHUTDOWN_LIMIT", 0.5)
    monkeypatch.setattr(Store, "merge", hang)
    async with asyncio.timeout(20):
        async with running.worker(settings):
            await publish(amqp, 1)
            await begun.wait()
            stopped = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - stopped >= 0.5
    await running.until(lambda: all_wait(settings, 1))


@pytest.mark.parametrize("batches", [3, 40])
@pytest.mark.parametrize("fault", ["frozen", "killed"])
async def test_an_outage_of_redis_costs_a_batch_one_delivery(
    settings: Settings,
    amqp: Channel,
    *,
    fresh_redis: FreshRedis,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    batches: int,
) -> None:
    """Eight workers hold batches, or some of them none; the limit is the one delivery."""
    monkeypatch.setattr(merge, "REDIS_WAIT_LIMIT", 3.0)
    deliveries: list[object] = []  # what RabbitMQ had counted before each of them
    broken = asyncio.Event()
    take, merge_window = Consumer._take, Store.merge  # noqa: SLF001

    async def counting(self: Consumer, message: DeliveredMessage) -> None:
        deliveries.append((message.header.properties.headers or {}).get("x-delivery-count", 0))
        await take(self, message)

    async def merging(self: Store, window: Sequence[Received]) -> list[Merged | Unmergeable]:
        await broken.wait()
        return await merge_window(self, window)

    async def delivered() -> bool:
        return len(deliveries) == batches

    monkeypatch.setattr(Consumer, "_take", counting)
    monkeypatch.setattr(Store, "merge", merging)
    redis = fresh_redis()
    one = msgspec.structs.replace(settings, redis_url=redis.url, delivery_limit=1)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(8):
            await stack.enter_async_context(running.worker(running.beside(one)))
        await publish(amqp, *range(batches))
        await running.until(delivered)
        await asyncio.to_thread(BREAK[fault], redis)
        broken.set()
        await running.until(lambda: all_wait(settings, batches))
        await asyncio.sleep(
            2 * merge.REDIS_WAIT_LIMIT
        )  # a long outage: whoever took them gave up again
        assert deliveries == [0] * batches
        await asyncio.to_thread(MEND[fault], redis)
        store = Store(one)
        for number in range(batches):
            key = Key("message", "default", f"T{number}")
            await running.until(functools.partial(store.record, key))
        await store.aclose()
    assert deliveries == [0] * batches + [1] * batches
    assert await waiting(amqp, STATE_QUEUE) == 0
    assert await waiting(amqp, DEAD) == 0


async def test_a_publishing_channel_that_rabbitmq_closes_requeues_nothing(
    settings: Settings, amqp: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an unpublishable message: the worker goes on with another channel."""
    redelivered: list[bool | None] = []
    take = Consumer._take  # noqa: SLF001

    async def noting(self: Consumer, message: DeliveredMessage) -> None:
        redelivered.append(message.redelivered)
        await take(self, message)

    async def refused_once(session: Session, outbox: Outbox) -> None:
        await session.channel.close()
        await session.reopen_channel()
        await publish_outbox(session, outbox)
        await session.channel.close()

    monkeypatch.setattr(Consumer, "_take", noting)
    monkeypatch.setattr(workers.worker, "publish_outbox", refused_once)
    async with running.worker(settings), running.subscriber(settings) as subscriber:
        for number in range(3):
            await publish(amqp, number)
            assert (await subscriber.event()).subject == f"T{number}"
    assert redelivered == [False] * 3
    assert await waiting(amqp, STATE_QUEUE) == 0
