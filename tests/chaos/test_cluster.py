"""A RabbitMQ cluster of three loses its leader, a node, and the connection to a node."""

import asyncio
import contextlib
import subprocess
from collections.abc import Callable, Iterator

import pytest

from deploy.local.child import running
from deploy.local.ports import free_port
from deploy.local.servers import HERE, PortMapper, RabbitMQ
from shared import topology
from tests.chaos import network
from tests.chaos.site import Row, Site, blocking
from tests.topology import delete_topology

Holds = Callable[[Row], None]

NODES = 3
COOKIE = "MMSPOSTBACKS"


class Cluster:
    """Three nodes that know each other.

    Attributes:
        partitions: whether a node can really be cut off; else it is only frozen.
    """

    def __init__(self, nodes: list[RabbitMQ], *, partitions: bool) -> None:
        self.nodes = nodes
        self.partitions = partitions
        self.url = ",".join(node.url for node in nodes)

    def leader(self) -> RabbitMQ:
        """The node that leads the input queue."""
        listed = self.nodes[0].ctl("list_queues", "name", "leader", "--no-table-headers")
        leaders = dict(line.split("\t") for line in listed.splitlines() if "\t" in line)
        return next(node for node in self.nodes if node.node == leaders[topology.STATE_QUEUE])

    def cut_off(self, node: RabbitMQ) -> None:
        if self.partitions:
            network.cut_off(self.nodes.index(node) + 1)
        else:
            node.pause()

    def join_again(self, node: RabbitMQ) -> None:
        if self.partitions:
            network.join_again(self.nodes.index(node) + 1)
        else:
            node.resume()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("cluster")
    with contextlib.ExitStack() as stack:
        try:
            places = stack.enter_context(network.places(NODES))
        except (subprocess.CalledProcessError, OSError):
            places = [HERE] * NODES
        mapper_port = free_port()
        nodes: list[RabbitMQ] = []
        for number, place in enumerate(places, 1):
            home = directory / (f"home-{number}" if place is not HERE else "home")
            home.mkdir(exist_ok=True)
            cookie = home / ".erlang.cookie"
            if not cookie.exists():
                cookie.write_text(COOKIE)
                cookie.chmod(0o400)
            mapper = PortMapper(home, port=mapper_port, place=place)
            if place is HERE and nodes:
                mapper = nodes[0].port_mapper
            nodes.append(
                RabbitMQ(
                    directory / f"node-{number}",
                    name=f"mms{number}",
                    port_mapper=mapper,
                    config=(
                        "loopback_users = none",
                        "cluster_partition_handling = pause_minority",
                        "disk_free_limit.absolute = 50MB",
                    ),
                )
            )
        stack.enter_context(running(*{node.port_mapper for node in nodes}))
        stack.enter_context(running(*nodes))
        for node in nodes[1:]:
            node.ctl("stop_app")
            node.ctl("join_cluster", nodes[0].node)
            node.ctl("start_app")
        yield Cluster(nodes, partitions=places[0] is not HERE)


@pytest.fixture
async def clustered(site: Site, cluster: Cluster) -> Site:
    """The site, on the cluster instead of its one RabbitMQ."""
    await delete_topology(cluster.nodes[0].url)
    site.change(amqp_url=cluster.url)
    return site


@pytest.mark.long
async def test_the_leader_is_killed(clustered: Site, cluster: Cluster, holds: Holds) -> None:
    await clustered.ingest()
    await clustered.worker()
    await clustered.worker()
    leader = await blocking(cluster.leader)
    async with clustered.load() as load:
        with load.fault():
            await blocking(leader.kill)
            await asyncio.sleep(10)
        await blocking(leader.start)
    holds(await load.verdict("RabbitMQ cluster of 3: the queue's leader killed (-9)"))
    await clustered.stop()


@pytest.mark.long
async def test_a_node_is_away_for_a_minute(clustered: Site, cluster: Cluster, holds: Holds) -> None:
    await clustered.ingest()
    await clustered.worker()
    await clustered.worker()
    leader = await blocking(cluster.leader)
    node = next(node for node in cluster.nodes if node is not leader)
    async with clustered.load() as load:
        with load.fault():
            await blocking(node.kill)
            await asyncio.sleep(60)
        await blocking(node.start)
    holds(await load.verdict("RabbitMQ cluster of 3: a node away for 60 s"))
    await clustered.stop()


@pytest.mark.long
async def test_the_leader_is_cut_off(clustered: Site, cluster: Cluster, holds: Holds) -> None:
    await clustered.ingest()
    await clustered.worker()
    await clustered.worker()
    leader = await blocking(cluster.leader)
    async with clustered.load() as load:
        try:
            with load.fault():
                await blocking(cluster.cut_off, leader)
                await asyncio.sleep(30)
        finally:
            await blocking(cluster.join_again, leader)
    how = "cut off by a partition" if cluster.partitions else "frozen (namespaces are not allowed)"
    holds(await load.verdict(f"RabbitMQ cluster of 3: the queue's leader {how} for 30 s"))
    await clustered.stop()
