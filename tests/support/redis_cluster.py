"""A private Redis Cluster: three primaries and, optionally, replicas of each."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from deploy.local.child import running
from deploy.local.ports import HOST, free_port
from deploy.local.servers import REDIS, Redis
from tests.support.processes import until

PRIMARIES = 3


@contextlib.contextmanager
def redis_cluster(
    directory: Path, *, replicas: int = 0, options: tuple[str, ...] = ()
) -> Iterator[list[Redis]]:
    """The nodes of a cluster that runs: first the primaries, then their replicas.

    Args:
        replicas: of each primary.
        options: more options of each node.
    """
    nodes = [
        Redis(
            directory / f"redis-{number}",
            arguments=(
                *("--cluster-enabled", "yes", "--cluster-node-timeout", "2000"),
                *("--cluster-port", str(free_port())),
                *options,
            ),
        )
        for number in range(PRIMARIES * (1 + replicas))
    ]
    with running(*nodes):
        addresses = [f"{HOST}:{node.port}" for node in nodes]
        create = ("--cluster", "create", *addresses, "--cluster-replicas", str(replicas))
        subprocess.run((f"{REDIS}-cli", *create, "--cluster-yes"), check=True, capture_output=True)
        # Some nodes learn of the others a moment later.
        assert until(lambda: all(says(node, "cluster_state:ok") for node in nodes))
        yield nodes


def url(nodes: list[Redis]) -> str:
    """`MMS_REDIS_URL` for these nodes."""
    return "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in nodes)


def says(node: Redis, state: str) -> bool:
    """Whether a cluster's node says this of the cluster."""
    return state in ask(node, "CLUSTER", "INFO")


def ask(node: Redis, *command: str) -> str:
    """The reply of a node to a command."""
    line = (f"{REDIS}-cli", "-p", str(node.port), *command)
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout
