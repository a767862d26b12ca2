"""The targets of the project, and whether the figures reach them."""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from tests.bench import endtoend, growth, ingress, needs, waiting, worker
from tests.bench.measure import Spread, number
from tests.bench.results import Table

Figures = Mapping[str, Spread]

AT_LEAST: Final = "≥"
AT_MOST: Final = "≤"


class Target(NamedTuple):
    """One target.

    Attributes:
        before: the value in release 0.2.0, on a machine like this.
        least, aim: the value that it must reach, and the value that it should reach.
        sign: `AT_LEAST` or `AT_MOST`.
        measured: returns the figure; raises `KeyError` when its case was not run.
    """

    figure: str
    before: str
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


def _share_of_machine(figures: Figures) -> float:
    """The sustained rate, as a share of what all cores would do at the costs of full load."""
    costs = needs.full_load(figures, 0)
    each = costs.ingress + costs.worker + costs.rabbitmq + costs.redis
    return figures[f"{_END}.sustained"].median * each * 1e-6 / growth.CORES


_OURS: Final = f"ingress.{ingress.OURS}"
_FLOOR: Final = f"ingress.{ingress.FLOOR}"
_WORKER: Final = f"worker.{worker.OURS}"
_NODE_WORKER: Final = f"worker.{worker.NODE}"
_END: Final = f"end-to-end.{endtoend.OURS}"
_WAITING: Final = f"waiting.1000.{waiting.DEFAULT}"


def _fastify(connections: int) -> Callable[[Figures], float]:
    return _plain(f"connections.{connections}.rate ÷ {ingress.NODE}")


TARGETS: Final = (
    Target(
        "CPU of ingress, worker, RabbitMQ and Redis at 1,000/s ÷ MMS_LINGER=0",
        *("1", 0.55, 0.35, AT_MOST, ""),
        _plain("waiting.1000.ratio"),
    ),
    Target("the same CPU", "1,265 µs", 700, 450, AT_MOST, "µs", _plain(f"{_WAITING}.cpu")),
    Target(
        "answer p99 at 1,000/s", "12 ms", 25, 15, AT_MOST, "ms", _plain(f"{_WAITING}.answer.p99")
    ),
    Target("event p99 at 1,000/s", "39 ms", 40, 20, AT_MOST, "ms", _plain(f"{_WAITING}.event.p99")),
    Target("ingress ÷ Fastify, 16 connections", "0.85", 1.1, 1.5, AT_LEAST, "", _fastify(16)),
    Target("ingress ÷ Fastify, 64 connections", "1.3", 1.5, 2, AT_LEAST, "", _fastify(64)),
    Target("ingress ÷ Fastify, 256 connections", "1.55", 2, 2.5, AT_LEAST, "", _fastify(256)),
    Target(
        "ingress CPU ÷ floor, 16 connections",
        *("1.5", 1.2, 1, AT_MOST, ""),
        _plain(f"connections.16.cpu ÷ {ingress.FLOOR}"),
    ),
    Target(
        "worker ÷ Node worker, postbacks/s",
        *("", 1.5, 3, AT_LEAST, ""),
        _ratio(f"{_WORKER}.rate", f"{_NODE_WORKER}.rate"),
    ),
    Target(
        "Node worker ÷ worker, CPU",
        *("", 1.5, 3, AT_LEAST, ""),
        _ratio(f"{_NODE_WORKER}.worker", f"{_WORKER}.worker"),
    ),
    Target(
        "sustained end to end ÷ (cores ÷ CPU of a postback at full load)",
        *("0.65", 0.75, 0.9, AT_LEAST, ""),
        _share_of_machine,
    ),
    Target("Redis bytes for a finished record", "858", 550, 450, AT_MOST, "", needs.record_bytes),
    Target(
        "growth, the highest of the costs that must stay flat",
        "0.19",
        0.1,
        0.05,
        AT_MOST,
        "",
        _grown,
    ),
    Target(
        "ingress throughput ÷ floor",
        *("1.67", 0.60, 0.80, AT_LEAST, ""),
        _ratio(f"{_OURS}.rate", f"{_FLOOR}.rate"),
    ),
    Target(
        "ingress throughput ÷ one-confirm-per-request aiohttp",
        *("9.9", 4, 5, AT_LEAST, ""),
        _ratio(f"{_OURS}.rate", f"ingress.{ingress.ONE_CONFIRM}.rate"),
    ),
    Target(
        "ingress throughput ÷ FastAPI + Celery",
        *("42", 12, 18, AT_LEAST, ""),
        _ratio(f"{_OURS}.rate", f"ingress.{ingress.CELERY}.rate"),
    ),
    Target(
        "worker CPU per postback", "89 µs", 170, 110, AT_MOST, "µs", _plain(f"{_WORKER}.worker")
    ),
    Target(
        "worker throughput ÷ one-by-one FastStream",
        *("10", 4, 8, AT_LEAST, ""),
        _ratio(f"{_WORKER}.rate", f"worker.{worker.FASTSTREAM}.rate"),
    ),
    Target(
        "end to end, sustained",
        "4,670/s",
        2_500,
        4_000,
        AT_LEAST,
        "/s",
        _plain(f"{_END}.sustained"),
    ),
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
                target.before,
                *(f"{target.sign} {goal:,g}" for goal in (target.least, target.aim)),
                shown,
                met,
            )
        )
    return Table("Targets", ("figure", "before", "at least", "the aim", "measured", "met"), rows)
