"""A Redis Cluster and a Sentinel lose a master. What a lagging replica never got is rebuilt."""

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.local.child import running
from deploy.local.ports import HOST, free_port
from deploy.local.servers import Redis
from tests.chaos.site import Row, Site, blocking

Holds = Callable[[Row], None]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[Redis]]:
    """Three masters, then a replica of each."""
    nodes = [
        Redis(
            tmp_path / f"redis-{number}",
            arguments=(
                *("--cluster-enabled", "yes", "--cluster-node-timeout", "2000"),
                *("--cluster-port", str(free_port())),
            ),
        )
        for number in range(6)
    ]
    with running(*nodes):
        addresses = [f"{HOST}:{node.port}" for node in nodes]
        create = ("--cluster", "create", *addresses, "--cluster-replicas", "1", "--cluster-yes")
        subprocess.run(("redis-cli", *create), check=True, capture_output=True)
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
