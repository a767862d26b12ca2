"""Ports on 127.0.0.1: the usual one if it is free, else another; the next run gets the same."""

import json
import random
import socket
from collections import deque
from pathlib import Path
from typing import Final

HOST = "127.0.0.1"

RANGE: Final = range(20_000, 32_000)
"""Where free ports are looked for."""

# Not the usual generator: tests seed it, and would all get the same ports.
_random = random.SystemRandom()


def is_free(port: int) -> bool:
    """Whether no process listens there; closed connections in TIME_WAIT do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port that is free now; use it soon.

    It is below the ports that Linux uses for outgoing connections, which could take it any moment.
    No port comes again before all others have come.
    """
    while True:
        _candidates.rotate(-1)
        if is_free(_candidates[0]):
            return _candidates[0]


def draw_from(ports: range) -> None:
    """Let `free_port` draw from these ports: processes with different ones take none twice."""
    _candidates.clear()
    _candidates.extend(_random.sample(ports, len(ports)))


_candidates: deque[int] = deque()

draw_from(RANGE)


def _reserve(port: int) -> bool:
    """Reserve a port until this process ends; False when another process has reserved it.

    A server that is restarted frees its port for a moment. Without a reservation another
    installation could take the port then, and would get the traffic that is meant for this one.
    The reservation is an abstract Unix socket: the kernel removes it with the process.
    """
    if port in _reserved:
        return True
    reservation = socket.socket(socket.AF_UNIX)
    try:
        reservation.bind(f"\0mms-postbacks/port/{port}")
    except OSError:
        reservation.close()
        return False
    reservation.detach()  # nothing closes it before the process ends
    _reserved.add(port)
    return True


_reserved: set[int] = set()


class Ports:
    """Ports by name, remembered in a file, and reserved until this process ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, int] = {}
        if path.exists():
            self._known = json.loads(path.read_text())
        self._taken: set[int] = set()

    def take(self, name: str, usual: int) -> int:
        """The port for this name: the port of the last run, else the usual one, else a free one."""
        wanted = (self._known.get(name, usual), usual)
        port = next((one for one in wanted if self._may_take(one)), None)
        while port is None:
            other = free_port()
            port = other if self._may_take(other) else None
        self._taken.add(port)
        self._known[name] = port
        self._path.write_text(json.dumps(self._known, indent=2) + "\n")
        return port

    def _may_take(self, port: int) -> bool:
        return port not in self._taken and is_free(port) and _reserve(port)
