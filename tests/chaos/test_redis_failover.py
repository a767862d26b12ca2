"""A Redis Cluster and a Redis with Sentinel lose a master; a rebuild restores lost changes.

`mms-admin doctor` checks such a Redis, with and without faults.
"""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.local.child import running
from deploy.local.ports import HOST
from deploy.local.servers import Redis
from tests.support.doctor import Examined
from tests.support.processes import until
from tests.support.redis_cluster import redis_cluster, says
from tests.support.site import Row, Site, blocking
from workers.admin.doctor.finding import State

Holds = Callable[[Row], None]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[Redis]]:
    """Three masters, then a replica of each."""
    with redis_cluster(tmp_path, replicas=1) as nodes:
        yield nodes


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[tuple[list[int], Redis]]:
    """The ports of three Sentinels, and the master of a master and a replica."""
    master = Redis(tmp_path / "master")
    replica = Redis(tmp_path / "replica", arguments=("--replicaof", HOST, str(master.port)))
    watchers = []
    for number in range(3):
        directory = tmp_path / f"sentinel-{number}"
        directory.mkdir()
        (directory / "sentinel.conf").write_text(
            f"sentinel monitor mms {HOST} {master.port} 2\n"
            "sentinel down-after-milliseconds mms 2000\n"
            "sentinel failover-timeout mms 6000\n"
        )
        watchers.append(Redis(directory, configuration=directory / "sentinel.conf"))
    with running(master, replica, *watchers):
        yield [watcher.port for watcher in watchers], master


@pytest.mark.long
async def test_a_cluster_loses_a_master(site: Site, holds: Holds, cluster: list[Redis]) -> None:
    addresses = ",".join(f"{HOST}:{node.port}" for node in cluster)
    site.change(redis_url=f"redis+cluster://{addresses}", delivery_limit=3)
    await site.ingest()
    await site.worker()
    async with site.load() as load:
        with load.fault():
            await blocking(cluster[0].kill)
            await asyncio.sleep(15)
            await blocking(cluster[0].start)
    await blocking(site.admin, "rebuild", "--emit")
    row = await load.verdict("Redis Cluster of 3+3 loses a master (-9), then `rebuild --emit`")
    assert await site.dead() == 0
    holds(row)
    await site.stop()


@pytest.mark.long
async def test_sentinel_fails_over(
    site: Site, holds: Holds, sentinels: tuple[list[int], Redis]
) -> None:
    ports, master = sentinels
    addresses = ",".join(f"{HOST}:{port}" for port in ports)
    site.change(redis_url=f"redis+sentinel://{addresses}/mms/0", delivery_limit=3)
    await site.ingest()
    await site.worker()
    async with site.load() as load:
        with load.fault():
            await blocking(master.kill)
            await asyncio.sleep(20)
            await blocking(master.start)
    await blocking(site.admin, "rebuild", "--emit")
    row = await load.verdict("Redis with Sentinel loses its master (-9), then `rebuild --emit`")
    assert await site.dead() == 0
    holds(row)
    await site.stop()


@pytest.mark.long
async def test_the_doctor_examines_a_cluster(site: Site, cluster: list[Redis]) -> None:
    addresses = ",".join(f"{HOST}:{node.port}" for node in cluster)
    site.change(redis_url=f"redis+cluster://{addresses}")
    primaries, replicas = cluster[:3], cluster[3:]
    examined = await blocking(Examined, site.settings)
    assert examined.wrong == []
    assert examined["redis cluster"].found == "3 primaries, ok"
    assert examined["redis permissions"].state is State.OK
    looked_at = {each.check.split()[1] for each in examined.findings if "clock" in each.check}
    assert looked_at == {f"{HOST}:{node.port}" for node in primaries}

    assert primaries[1].ask(b"CONFIG SET appendfsync everysec\r\n").startswith(b"+OK")
    examined = await blocking(Examined, site.settings)
    assert examined.wrong == [f"redis {HOST}:{primaries[1].port} appendfsync"]

    for node in (*replicas, primaries[1]):  # a third of the slots has no node
        await blocking(node.kill)
    assert await blocking(until, lambda: says(primaries[0], "cluster_state:fail"))
    examined = await blocking(Examined, site.settings)
    assert examined.status == 1
    assert any(each.startswith("redis") for each in examined.wrong), examined.wrong


@pytest.mark.long
async def test_the_doctor_asks_sentinel(site: Site, sentinels: tuple[list[int], Redis]) -> None:
    ports, master = sentinels
    addresses = ",".join(f"{HOST}:{port}" for port in ports)
    site.change(redis_url=f"redis+sentinel://{addresses}/mms/0")
    examined = await blocking(Examined, site.settings)
    assert examined.wrong == []
    for check in ("version", "appendfsync", "eviction", "clock", "permissions"):
        assert examined[f"redis {check}"].state is State.OK
    assert master.ask(b"CONFIG SET maxmemory-policy allkeys-lru\r\n").startswith(b"+OK")
    assert master.ask(b"CONFIG SET maxmemory 64mb\r\n").startswith(b"+OK")
    assert (await blocking(Examined, site.settings)).wrong == ["redis eviction"]

    site.change(redis_url=f"redis+sentinel://{addresses}/another/0")
    examined = await blocking(Examined, site.settings)
    assert examined.wrong == ["redis"]
    assert "another" in examined["redis"].found
    assert "SENTINEL MASTERS" in examined["redis"].advice
