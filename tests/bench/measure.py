"""CPU and memory from the operating system, and one figure from several rounds."""

import os
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Spread(msgspec.Struct, frozen=True):
    """The same figure from several rounds."""

    median: float
    least: float
    most: float
    rounds: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        found = list(values)
        return cls(statistics.median(found), min(found), max(found), len(found))

    def __str__(self) -> str:
        if self.rounds == 1:
            return number(self.median)
        return f"{number(self.median)} ({number(self.least)} to {number(self.most)})"


def number(value: float) -> str:
    """A number with three significant digits."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def cpu(session: int) -> float:
    """CPU seconds, user and system, of all processes of a session.

    They include children that have ended and were waited for. The precision is one tick, 10 ms.
    """
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[3]) == session:
            ticks += sum(map(int, fields[11:15]))
    return ticks / _TICKS


def exact_cpu(process: int) -> float:
    """CPU seconds of the threads of one process, to the nanosecond; without its children."""
    threads = Path(f"/proc/{process}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def rss(process: int) -> int:
    """Resident bytes of one process."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE


class Meter:
    """CPU of several sessions since a point in time.

    Args:
        sessions: the process id of each session's leader, by name.
    """

    def __init__(self, sessions: Mapping[str, int]) -> None:
        self._sessions = dict(sessions)
        self._before = self._read()

    def spent(self) -> dict[str, float]:
        """CPU seconds since this was made, by name."""
        return {name: now - self._before[name] for name, now in self._read().items()}

    def _read(self) -> dict[str, float]:
        return {name: cpu(session) for name, session in self._sessions.items()}


def micro(seconds: float, count: float) -> float:
    """Microseconds for each of `count`."""
    return seconds / max(count, 1) * 1e6
