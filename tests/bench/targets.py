"""The targets of the project, and whether the figures reach them."""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from tests.bench import endtoend, ingress, worker
from tests.bench.measure import Spread, number
from tests.bench.results import Table

Figures = Mapping[str, Spread]

FLAT: Final = 0.10
AT_LEAST: Final = "≥"
AT_MOST: Final = "≤"


class Target(NamedTuple):
    """One target.

    Attributes:
        least, aim: the value that it must reach, and the value that it should reach.
        sign: `AT_LEAST` or `AT_MOST`.
        measured: returns the figure; raises `KeyError` when its case was not run.
    """

    figure: str
    least: float
    aim: float
    sign: str
    unit: str
    measured: Callable[[Figures], float]

    def reached(self, value: float, goal: float) -> bool:
        return value >= goal if self.sign == AT_LEAST else value <= goal


def _ratio(over: str, under: str) -> Callable[[Figures], float]:
    return lambda figures: figures[over].median / figures[under].median


def _plain(name: str) -> Callable[[Figures], float]:
    return lambda figures: figures[name].median


def _grown(figures: Figures) -> float:
    """The highest growth of the costs that must stay flat."""
    found = [
        figures[f"growth.{name}.change"].median
        for name in (
            "Ingress processes.CPU µs",
            "Workers.CPU µs",
            "Records in Redis.Redis CPU µs",
            "Records in Redis.bytes a record",
            "Postbacks that wait.CPU µs",
        )
    ]
    if "memory.ingest.growth" in figures:
        found += [figures[f"memory.{name}.growth"].median for name in ("ingest", "worker")]
    return max(found)


def _record_bytes(figures: Figures) -> float:
    """With the most records."""
    sizes = {
        int(name.split(".")[2]): spread.median
        for name, spread in figures.items()
        if name.startswith("growth.Records in Redis.") and name.endswith(".bytes a record")
    }
    return sizes[max(sizes)]


_OURS: Final = f"ingress.{ingress.OURS}"
_FLOOR: Final = f"ingress.{ingress.FLOOR}"
_WORKER: Final = f"worker.{worker.OURS}"
_END: Final = f"end-to-end.{endtoend.OURS}"
_AT: Final = f"{_END}.{endtoend.FIXED:,}/s"

TARGETS: Final = (
    Target(
        "ingress throughput ÷ floor",
        0.60,
        0.80,
        AT_LEAST,
        "",
        _ratio(f"{_OURS}.rate", f"{_FLOOR}.rate"),
    ),
    Target(
        "ingress CPU per postback ÷ floor",
        *(1.5, 1.2, AT_MOST, ""),
        _ratio(f"{_OURS}.cpu", f"{_FLOOR}.cpu"),
    ),
    Target(
        "ingress throughput ÷ one-confirm-per-request aiohttp",
        *(4, 5, AT_LEAST, ""),
        _ratio(f"{_OURS}.rate", f"ingress.{ingress.ONE_CONFIRM}.rate"),
    ),
    Target(
        "ingress throughput ÷ FastAPI + Celery",
        *(12, 18, AT_LEAST, ""),
        _ratio(f"{_OURS}.rate", f"ingress.{ingress.CELERY}.rate"),
    ),
    Target("worker CPU per postback", 170, 110, AT_MOST, "µs", _plain(f"{_WORKER}.worker")),
    Target(
        "worker throughput ÷ one-by-one FastStream",
        *(4, 8, AT_LEAST, ""),
        _ratio(f"{_WORKER}.rate", f"worker.{worker.FASTSTREAM}.rate"),
    ),
    Target("end to end, sustained", 2_500, 4_000, AT_LEAST, "/s", _plain(f"{_END}.sustained")),
    Target("answer p99 at 1,000/s", 50, 15, AT_MOST, "ms", _plain(f"{_AT}.answer.p99")),
    Target("POST to event p99 at 1,000/s", 150, 40, AT_MOST, "ms", _plain(f"{_AT}.event.p99")),
    Target("Redis bytes per finished record", 1_200, 600, AT_MOST, "", _record_bytes),
    Target("growth, the highest of the costs that must stay flat", FLAT, FLAT, AT_MOST, "", _grown),
)


def table(figures: Figures) -> Table:
    """All targets with the measured figures."""
    rows = []
    for target in TARGETS:
        try:
            value = target.measured(figures)
        except (KeyError, ValueError):
            shown, met = "not measured", ""
        else:
            shown = number(value) + (f" {target.unit}" if target.unit else "")
            met = "no"
            if target.reached(value, target.least):
                met = "the aim" if target.reached(value, target.aim) else "yes"
        rows.append(
            (
                target.figure,
                *(f"{target.sign} {goal:,g}" for goal in (target.least, target.aim)),
                shown,
                met,
            )
        )
    return Table("Targets", ("figure", "at least", "the aim", "measured", "met"), rows)
