"""A separate network for each node of a cluster, so that a node can be cut off.

Each node has a Linux network namespace, and a bridge connects them. Taking a node's link down is a
partition: packets are dropped without an error. This needs root and a kernel that allows it.
"""

import contextlib
import subprocess
from collections.abc import Iterator

from deploy.local.servers import Place

SUBNET = "10.77.0"
BRIDGE = "mmsbr"


def cut_off(node: int) -> None:
    """Take a node's link down."""
    _ip("link", "set", f"mmsv{node}", "down")


def join_again(node: int) -> None:
    """Put a node's link up."""
    _ip("link", "set", f"mmsv{node}", "up")


@contextlib.contextmanager
def places(count: int) -> Iterator[list[Place]]:
    """So many places, each with its own network. They reach each other and are reached from here.

    Raises:
        subprocess.CalledProcessError, OSError: namespaces are not allowed here.
    """
    _remove(count)
    try:
        _ip("link", "add", BRIDGE, "type", "bridge")
        _ip("addr", "add", f"{SUBNET}.254/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        yield [_place(node) for node in range(1, count + 1)]
    finally:
        _remove(count)


def _place(node: int) -> Place:
    name, host = f"mms{node}", f"{SUBNET}.{node}"
    _ip("netns", "add", name)
    _ip("link", "add", f"mmsv{node}", "type", "veth", "peer", "name", "eth0", "netns", name)
    _ip("link", "set", f"mmsv{node}", "master", BRIDGE, "up")
    _ip("-n", name, "addr", "add", f"{host}/24", "dev", "eth0")
    _ip("-n", name, "link", "set", "eth0", "up")
    _ip("-n", name, "link", "set", "lo", "up")
    return Place(host, ("ip", "netns", "exec", name))


def _remove(count: int) -> None:
    for node in range(1, count + 1):
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("link", "del", f"mmsv{node}")
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("netns", "del", f"mms{node}")
    with contextlib.suppress(subprocess.CalledProcessError):
        _ip("link", "del", BRIDGE)


def _ip(*arguments: str) -> None:
    subprocess.run(("ip", *arguments), check=True, capture_output=True)
