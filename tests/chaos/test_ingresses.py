"""The ingress is killed, its disk is full, it is restarted under load, all resends come at once."""

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from deploy.local.ports import free_port
from shared.settings.units import Bytes
from tests.support.site import Row, Site, blocking

Holds = Callable[[Row], None]


async def test_killed_with_a_full_spool(site: Site, holds: Holds) -> None:
    """RabbitMQ is away, so the postbacks are only in the spool, and then the process is killed."""
    ingress = await site.ingest()
    await site.worker()
    async with site.load() as load:
        with load.fault():
            await blocking(site.rabbit.kill)
            await asyncio.sleep(4)
            await blocking(ingress.kill)
            await asyncio.sleep(1)
            await site.ingest()
            await asyncio.sleep(2)
        await blocking(site.rabbit.start)
    holds(await load.verdict("ingress killed (-9) with RabbitMQ away and a spool"))


@pytest.mark.long
async def test_killed_again_and_again_while_the_spool_drains(site: Site, holds: Holds) -> None:
    ingress = await site.ingest()
    await site.worker()
    async with site.load() as load:
        with load.fault():
            await blocking(site.rabbit.kill)
            await asyncio.sleep(5)
            await blocking(site.rabbit.start)
            for _ in range(6):
                await asyncio.sleep(0.4)
                await blocking(ingress.kill)
                ingress = await site.ingest()
    holds(await load.verdict("ingress killed (-9) 6 times while its spool drains"))


@pytest.mark.long
async def test_spool_full(site: Site, holds: Holds) -> None:
    """Postbacks are answered 503, and the provider resends them."""
    site.change(spool_max_bytes=Bytes(300_000))
    await site.ingest()
    await site.worker()
    async with site.load() as load:
        with load.fault():
            await blocking(site.rabbit.kill)
            await asyncio.sleep(8)
        await blocking(site.rabbit.start)
    assert load.ledger.attempts["503"] > 0
    holds(await load.verdict("RabbitMQ away and the spool at its limit"))


@pytest.mark.long
async def test_disk_full(site: Site, holds: Holds) -> None:
    """A file system of 2 MiB under the spool, half of it the spool's own reserve."""
    disk = site.directory / "disk"
    disk.mkdir()
    async with contextlib.AsyncExitStack() as stack:
        await blocking(site.mount, disk, "2m")
        stack.push_async_callback(blocking, site.unmount, disk)
        site.change(spool_path=str(disk / "spool.db"))
        stack.push_async_callback(site.stop)
        await site.ingest()
        await site.worker()
        async with site.load() as load:
            with load.fault():
                await blocking(site.rabbit.kill)
                await asyncio.sleep(10)
            await blocking(site.rabbit.start)
        assert load.ledger.attempts["503"] > 0
        holds(await load.verdict("RabbitMQ away and the spool's disk full"))


@pytest.mark.long
async def test_rolling_restart(site: Site, holds: Holds) -> None:
    """Two ingresses and three workers, replaced one after the other."""
    ports = [free_port(), free_port()]
    spools = [str(site.directory / f"spool-{port}.db") for port in ports]
    ingresses = [
        await site.ingest(ingest_port=port, spool_path=spool)
        for port, spool in zip(ports, spools, strict=True)
    ]
    workers = [await site.worker() for _ in range(3)]
    async with site.load(*ports) as load:
        with load.fault():
            for at, (port, spool) in enumerate(zip(ports, spools, strict=True)):
                await blocking(ingresses[at].stop)
                ingresses[at] = await site.ingest(ingest_port=port, spool_path=spool)
            for at in range(3):
                await blocking(workers[at].stop)
                workers[at] = await site.worker()
    assert set(load.ledger.attempts) <= {"200", "no connection"}
    holds(await load.verdict("rolling restart of 2 ingresses and 3 workers"))


@pytest.mark.long
async def test_two_ingresses_share_a_spool(site: Site, holds: Holds) -> None:
    ports = [free_port(), free_port()]
    ingresses = [await site.ingest(ingest_port=port) for port in ports]
    await site.worker()
    async with site.load(*ports) as load:
        with load.fault():
            await blocking(site.rabbit.kill)
            await asyncio.sleep(4)
            await blocking(ingresses[0].kill)
            await blocking(site.rabbit.start)
            ingresses[0] = await site.ingest(ingest_port=ports[0])
            await asyncio.sleep(4)
    holds(await load.verdict("two ingresses on one spool, RabbitMQ away, one killed (-9)"))


@pytest.mark.long
async def test_retry_storm(site: Site, holds: Holds) -> None:
    """After an outage of the ingress all failed postbacks are resent at once."""
    ingress = await site.ingest()
    await site.worker()
    async with site.load(rate=600) as load:
        await blocking(ingress.kill)
        await asyncio.sleep(6)
        with load.fault():
            await site.ingest()
            await asyncio.sleep(6)
    holds(await load.verdict("retry storm after the ingress was away for 6 s"))
