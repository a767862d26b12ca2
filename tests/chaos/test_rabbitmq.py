"""RabbitMQ is killed, hangs, has alarms, refuses messages, or loses its topology."""

import asyncio
from collections.abc import Callable

import aio_pika
import pytest

from shared.rabbitmq import topology
from shared.settings.units import Bytes
from tests.support.site import Row, Site, blocking

Holds = Callable[[Row], None]

ALARMS = {
    "memory": ("set_vm_memory_high_watermark", "0.00001", "0.4"),
    "disk": ("set_disk_free_limit", "1000000GB", "50MB"),
}


@pytest.mark.long
async def test_kill_9_and_restart(site: Site, holds: Holds) -> None:
    await site.ingest()
    await site.worker()
    async with site.load() as load:
        with load.fault():
            await blocking(site.rabbit.kill)
            await asyncio.sleep(3)
            await blocking(site.rabbit.start)
    holds(await load.verdict("RabbitMQ killed (-9) and started again"))


@pytest.mark.long
async def test_black_hole(site: Site, holds: Holds) -> None:
    """RabbitMQ neither answers nor closes a connection."""
    await site.ingest()
    await site.worker()
    async with site.load() as load:
        with load.fault():
            await blocking(site.rabbit.pause)
            await asyncio.sleep(20)
            await blocking(site.rabbit.resume)
    holds(await load.verdict("RabbitMQ hangs for 20 s (SIGSTOP)"))


@pytest.mark.long
async def test_stop_app(site: Site, holds: Holds) -> None:
    await site.ingest()
    await site.worker()
    async with site.load() as load:
        with load.fault():
            await blocking(site.rabbit.ctl, "stop_app")
            await asyncio.sleep(3)
            await blocking(site.rabbit.ctl, "start_app")
    holds(await load.verdict("RabbitMQ `stop_app`, `start_app`"))


@pytest.mark.long
@pytest.mark.parametrize("name", ALARMS)
async def test_alarm(site: Site, holds: Holds, name: str) -> None:
    """RabbitMQ stops reading from publishers, for longer than all of our time limits."""
    command, alarming, normal = ALARMS[name]
    site.change(delivery_limit=4)
    await site.ingest()
    await site.worker()
    async with site.load() as load:
        try:
            with load.fault():
                await blocking(site.rabbit.ctl, command, alarming)
                await asyncio.sleep(45)
        finally:
            await blocking(site.rabbit.ctl, command, normal)
    row = await load.verdict(f"RabbitMQ {name} alarm for 45 s, delivery limit 4")
    assert await site.dead() == 0
    holds(row)


@pytest.mark.long
async def test_queue_at_its_limit(site: Site, holds: Holds) -> None:
    """No worker runs, so the queue becomes full and refuses messages until one starts."""
    site.change(queue_max_bytes=Bytes(100_000))
    await site.ingest()
    async with site.load() as load:
        with load.fault():
            await asyncio.sleep(8)
        await site.worker()
    holds(await load.verdict("input queue full (`reject-publish`)"))


@pytest.mark.long
async def test_binding_deleted(site: Site, holds: Holds) -> None:
    """Some batches reach only the archive; a rebuild merges them."""
    await site.ingest()
    await site.worker()
    async with (
        site.load() as load,
        await aio_pika.connect(site.rabbit.url) as connection,
        connection.channel() as channel,
    ):
        queue = await channel.get_queue(topology.STATE_QUEUE)
        with load.fault():
            for _ in range(10):
                await queue.unbind(topology.POSTBACKS, "")
                await asyncio.sleep(1)
    await asyncio.sleep(1)
    await blocking(site.admin, "rebuild", "--emit")
    holds(await load.verdict("binding of the input queue deleted, then `rebuild --emit`"))


@pytest.mark.long
async def test_queue_deleted(site: Site, holds: Holds) -> None:
    await site.ingest()
    await site.worker()
    async with (
        site.load() as load,
        await aio_pika.connect(site.rabbit.url) as connection,
        connection.channel() as channel,
    ):
        with load.fault():
            await channel.queue_delete(topology.STATE_QUEUE)
            await asyncio.sleep(8)
    await blocking(site.admin, "rebuild", "--emit")
    holds(await load.verdict("input queue deleted with all in it, then `rebuild --emit`"))


@pytest.mark.long
async def test_a_subscriber_refuses(site: Site, holds: Holds) -> None:
    """The subscriber's queue is full; the event log has the missed events."""
    await site.ingest()
    await site.worker()
    async with (
        site.load() as load,
        await aio_pika.connect(site.rabbit.url) as connection,
        connection.channel() as channel,
    ):
        with load.fault():
            full = await channel.declare_queue(
                exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
            )
            await full.bind(topology.EVENTS, "#")
            await asyncio.sleep(6)
    holds(await load.verdict("a subscriber's queue full (`reject-publish`)"))
