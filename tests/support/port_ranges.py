"""Ports of their own for the processes of pytest-xdist."""

from typing import Final

from deploy.local.ports import RANGE

MAX_PROCESSES: Final = 8
"""Processes that have ports of their own."""

PORTS: Final = len(RANGE) // MAX_PROCESSES
"""Ports of each process."""


def ports_of(process: int) -> range:
    """The ports of a process of pytest-xdist, by its number from 0."""
    first = RANGE.start + process % MAX_PROCESSES * PORTS
    return range(first, first + PORTS)
