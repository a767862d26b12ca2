"""Redis is killed, hangs, refuses writes, loses its data, or is slow."""

import asyncio
import re
from collections.abc import Callable

import pytest

from deploy.local.servers import Redis
from tests.support.site import Row, Site, blocking

Holds = Callable[[Row], None]


async def test_kill_9_and_restart(site: Site, holds: Holds) -> None:
    await site.ingest()
    await site.worker()
    async with site.load() as load:
        with load.fault():
            await blocking(site.redis.kill)
            await asyncio.sleep(3)
            await blocking(site.redis.start)
    holds(await load.verdict("Redis killed (-9) and started again"))


@pytest.mark.long
async def test_black_hole(site: Site, holds: Holds) -> None:
    await site.ingest()
    await site.worker()
    async with site.load() as load:
        with load.fault():
            await blocking(site.redis.pause)
            await asyncio.sleep(20)
            await blocking(site.redis.resume)
    holds(await load.verdict("Redis hangs for 20 s (SIGSTOP)"))


@pytest.mark.long
@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_a_long_outage_costs_a_batch_one_delivery(
    site: Site, holds: Holds, fault: str
) -> None:
    """The outage is much longer than the limits of the workers and of RabbitMQ; eight workers run.

    The delivery limit is 2, not 1: RabbitMQ requeues a batch that it delivers just when a worker
    stops consuming, and that counts as a delivery too.
    """
    timeout = "application:set_env(rabbit, consumer_timeout, {})."
    await blocking(site.rabbit.ctl, "eval", timeout.format(15_000))  # of channels opened from now
    site.change(delivery_limit=2)
    await site.ingest()
    workers = [await site.worker() for _ in range(8)]
    async with site.load() as load:
        with load.fault():
            await blocking(site.redis.kill if fault == "killed" else site.redis.pause)
            await asyncio.sleep(40)
            await blocking(site.redis.start if fault == "killed" else site.redis.resume)
    await blocking(site.rabbit.ctl, "eval", timeout.format(1_800_000))
    row = await load.verdict(f"Redis {fault} for 40 s, eight workers, delivery limit 2")
    assert await site.dead() == 0
    for worker in workers:
        assert worker.log().count("requeued unacknowledged batches once") == 1
        assert "stopped consuming: " in worker.log()  # else what others requeue comes to it
    holds(row)


@pytest.mark.long
async def test_emptied_and_rebuilt(site: Site, holds: Holds) -> None:
    await site.ingest()
    await site.worker()
    async with site.load() as load:
        await asyncio.sleep(3)
        with load.fault():
            async with site.state() as state:
                await state.flushall()
            await asyncio.sleep(1)
    await blocking(site.admin, "rebuild", "--emit")
    holds(await load.verdict("Redis emptied (`FLUSHALL`), then `rebuild --emit`"))


@pytest.mark.long
async def test_scripts_forgotten(site: Site, holds: Holds) -> None:
    await site.ingest()
    await site.worker()
    async with site.load() as load, site.state() as state:
        with load.fault():
            for _ in range(20):
                await state.script_flush()
                await asyncio.sleep(0.2)
    holds(await load.verdict("Redis `SCRIPT FLUSH`, 20 times"))


@pytest.mark.long
async def test_read_only_replica(site: Site, holds: Holds) -> None:
    """As after a failover to the other node. The master does not exist; the data stays."""
    await site.ingest()
    await site.worker()
    async with site.load() as load, site.state() as state:
        with load.fault():
            await state.replicaof("127.0.0.1", "1")
            await asyncio.sleep(15)
            await state.replicaof("NO", "ONE")
    holds(await load.verdict("Redis made a read-only replica for 15 s"))


@pytest.mark.long
async def test_out_of_memory(site: Site, holds: Holds) -> None:
    await site.ingest()
    await site.worker()
    async with site.load() as load, site.state() as state:
        with load.fault():
            await state.config_set("maxmemory", "1mb")
            await asyncio.sleep(15)
            await state.config_set("maxmemory", "0")
    holds(await load.verdict("Redis out of memory for 15 s"))


@pytest.mark.long
async def test_slow(site: Site, holds: Holds) -> None:
    """Redis is busy for a second, several times, with `DEBUG SLEEP`."""
    await site.ingest()
    await site.worker()
    async with site.load() as load, site.state() as state:
        with load.fault():
            for _ in range(8):
                await state.execute_command("DEBUG", "SLEEP", "1")
    holds(await load.verdict("Redis slow: busy for a second, 8 times"))


@pytest.mark.long
async def test_loading(site: Site, holds: Holds, fresh_redis: Callable[..., Redis]) -> None:
    """Redis answers LOADING while it reads its data, which is slowed down to some seconds."""
    site.redis = fresh_redis(arguments=("--enable-debug-command", "local"))
    site.change(redis_url=site.redis.url)
    await site.ingest()
    worker = await site.worker()
    async with site.load() as load:
        await asyncio.sleep(2)
        with load.fault():
            async with site.state() as state:
                await state.config_set("key-load-delay", "300")
                await state.config_set("loading-process-events-interval-bytes", "1024")
                await state.execute_command("DEBUG", "LOADAOF")
    row = await load.verdict("Redis loading its data")
    assert re.search("loading", worker.log(), re.IGNORECASE)
    holds(row)
    await site.stop()
