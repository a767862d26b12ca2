"""Declaring exchanges and queues: again and again, in conflict, and when somebody deletes them."""

import asyncio

import aio_pika
import msgspec
import pytest

from deploy.local.servers import RabbitMQ
from shared.errors import TopologyConflictError
from shared.rabbitmq import topology
from shared.rabbitmq.session import open_session
from shared.settings.settings import Settings
from tests.support import running
from workers.main import WorkerProcess


async def test_declared_twice_changes_nothing(settings: Settings) -> None:
    for _ in range(2):
        session = await open_session(settings, name="test")
        await topology.declare(session.connection, settings)
        await session.close()


async def test_a_conflict_names_the_queue_and_the_difference(settings: Settings) -> None:
    session = await open_session(settings, name="first")
    other = msgspec.structs.replace(settings, delivery_limit=7)
    with pytest.raises(TopologyConflictError) as caught:
        await topology.declare(session.connection, other)
    await session.close()
    message = str(caught.value)
    assert topology.STATE_QUEUE in message
    assert "x-delivery-limit" in message
    assert "20" in message
    assert "'7'" in message


async def test_replicas_are_asked_for(settings: Settings, rabbit: RabbitMQ) -> None:
    three = msgspec.structs.replace(settings, replicas=3)
    session = await open_session(three, name="first")
    await session.close()
    for name, argument in {
        topology.STATE_QUEUE: "x-quorum-initial-group-size",
        topology.DEAD: "x-quorum-initial-group-size",
        topology.ARCHIVE: "x-initial-cluster-size",
        topology.EVENT_LOG: "x-initial-cluster-size",
    }.items():
        rows = rabbit.ctl("list_queues", "name", "arguments", "members").splitlines()
        row = next(row for row in rows if row.startswith(f"{name}\t"))
        assert f'{{"{argument}",3}}' in row.replace(" ", "")
        assert row.endswith(f"[{rabbit.node}]"), "and one node has the one copy, without a word"


@pytest.mark.parametrize("later", [0, 1])
async def test_other_replicas_later_are_a_conflict(settings: Settings, later: int) -> None:
    session = await open_session(msgspec.structs.replace(settings, replicas=3), name="first")
    other = msgspec.structs.replace(settings, replicas=later)
    with pytest.raises(TopologyConflictError, match="x-quorum-initial-group-size"):
        await topology.declare(session.connection, other)
    await session.close()


async def test_a_worker_in_conflict_ends_and_an_ingress_stays_up(settings: Settings) -> None:
    session = await open_session(settings, name="first")
    await session.close()
    other = msgspec.structs.replace(settings, delivery_limit=7)
    with pytest.RaisesGroup(pytest.RaisesExc(TopologyConflictError)):
        await asyncio.wait_for(WorkerProcess(other).run(asyncio.Event()), 10)
    async with running.ingest(other):
        await running.post(other, b"{}")


@pytest.mark.parametrize(
    "name", [topology.STATE_QUEUE, topology.ARCHIVE, topology.EVENT_LOG, topology.DEAD]
)
async def test_a_deleted_queue_is_declared_again(
    settings: Settings, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.rabbitmq.reconnect.CHECK_INTERVAL", 0.2)
    async with running.worker(settings), running.channel(settings) as channel:
        await channel.queue_delete(name)

        async def back() -> bool:
            async with running.channel(settings) as fresh:
                try:
                    await fresh.declare_queue(name, passive=True)
                except aio_pika.exceptions.ChannelNotFoundEntity:
                    return False
            return True

        await running.until(back)
        body = b'{"origin":"MMS_MT","code":"N102","tracking-id":"again"}'
        async with (
            running.ingest(running.beside(settings)),
            running.subscriber(settings) as subscriber,
        ):
            await running.post(settings, body)
            assert (await subscriber.event()).subject == "again"


async def test_a_deleted_binding_is_declared_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.rabbitmq.reconnect.CHECK_INTERVAL", 0.2)
    async with running.worker(settings), running.subscriber(settings) as subscriber:
        async with running.channel(settings) as channel:
            queue = await channel.get_queue(topology.STATE_QUEUE)
            await queue.unbind(topology.POSTBACKS, "")
        body = b'{"origin":"MMS_MT","code":"N102","tracking-id":"bound-%d"}'
        async with running.ingest(running.beside(settings)):

            async def has_event() -> bool:
                await running.post(settings, body % 1)
                return not await subscriber.silent(0.1)

            await running.until(has_event)
