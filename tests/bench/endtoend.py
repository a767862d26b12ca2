"""End to end: the sustained rate, and the times from a POST to its response and to its event."""

import contextlib
import itertools
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from deploy.local.child import Child, running
from tests.bench import node
from tests.bench.measure import Meter, Spread, micro
from tests.bench.pacer import Job, Outcome
from tests.bench.results import Bars, Section, Table
from tests.bench.scale import Scale
from tests.bench.site import DEFAULTS, ROOT, Site, say
from tests.bench.wrk import LoadError

OURS: Final = "mms-ingest + mms-worker"
NODE: Final = "Node: Fastify, amqplib, ioredis"

MAX_LAG: Final = 0.25
"""Seconds; a rate counts as sustained if at its end responses and events are not later."""

RETRY_LAG: Final = 1.0
"""Seconds; a rate with a larger lag is not tried again."""

WATCHED: Final = 250
"""Messages a second whose events are awaited."""

SHARES: Final = (0.75, 1)
FULL: Final = f"{SHARES[-1]:.0%} of sustained"
FIXED: Final = 1_000

NOTE: Final = f"""\
One ingress and one worker (Node: one process each), RabbitMQ, Redis, the load generator and the
subscriber, all on this machine. Ours and Node take turns. FastAPI and Celery are not here: they
sustain a few hundred a second, and the search takes minutes. POSTs leave at a fixed rate over up to
64 connections, whether or not earlier ones were answered, and times count from when a POST was due.
*Sustained* is the highest rate, in steps of 8 %, at which half of all responses and events in the
last tenth of the run still came within {MAX_LAG * 1e3:.0f} ms, all POSTs were answered 200, and no
event was missing. The time of an event is when a subscriber has it; about 250 messages a second are
watched. A rate that just fails is tried once more, because the speed of a machine varies.
"""


_runs: Final = itertools.count()


class Pipeline(NamedTuple):
    """Processes that take POSTs on a port and publish events."""

    name: str
    children: dict[str, Child]
    port: int


@contextlib.contextmanager
def ours(site: Site, settings: Mapping[str, str] = DEFAULTS) -> Iterator[Pipeline]:
    """Run one ingress and one worker of ours; for `settings` see `Site.ingest`."""
    ingest, port = site.ingest(settings)
    pipeline = Pipeline(OURS, {"ingest": ingest, "worker": site.worker(settings)}, port)
    with running(*pipeline.children.values()):
        yield pipeline


@contextlib.contextmanager
def node_pipeline(site: Site) -> Iterator[Pipeline]:
    """Run Fastify with amqplib, and a Node worker."""
    ingress = node.ingress(site)
    worker = node.worker(site)
    with running(ingress, worker):
        yield Pipeline(NODE, {"ingest": ingress, "worker": worker}, ingress.port)


class Run(NamedTuple):
    """One run at one rate, with CPU microseconds for each postback by process."""

    rate: float
    outcome: Outcome
    cpu: dict[str, float]

    @property
    def kept_up(self) -> bool:
        seen = self.outcome
        return not (seen.failed or seen.lost or seen.cut) and seen.lag <= MAX_LAG


def offer(site: Site, pipeline: Pipeline, rate: float, seconds: float, warm_up: float) -> Run:
    """Send at a rate for some seconds to an empty pipeline."""
    site.reset()
    job = Job(
        port=pipeline.port,
        amqp_url=site.rabbit.url,
        run=f"e{next(_runs)}",
        watched=max(1, round(rate / 2 / WATCHED)),
        rate=rate,
        warm_up=warm_up,
        seconds=seconds,
    )
    sessions = {name: child.pid or 0 for name, child in pipeline.children.items()}
    meter = Meter(sessions | {"rabbitmq": site.rabbit.pid or 0, "redis": site.redis.pid or 0})
    done = subprocess.run(
        (sys.executable, "-m", "tests.bench.pacer", msgspec.json.encode(job).decode()),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        timeout=warm_up + seconds + 120,
    )
    spent = meter.spent()
    outcome = msgspec.json.decode(done.stdout, type=Outcome)
    spent["load"] = outcome.cpu
    cpu = {name: micro(each, outcome.sent) for name, each in spent.items()}
    return Run(rate, outcome, cpu)


def sustained(site: Site, pipeline: Pipeline, rates: Sequence[float], scale: Scale) -> float:
    """The highest of these ascending rates that is sustained, by binary search.

    Raises:
        LoadError: not even the lowest rate is sustained.
    """
    low, high = 0, len(rates)  # all below low are sustained; none from high on
    while low < high:
        middle = (low + high) // 2
        if _keeps_up(site, pipeline, rates[middle], scale):
            low = middle + 1
        else:
            high = middle
    if low == 0:
        raise LoadError(f"{pipeline.name} does not keep up with {rates[0]:,.0f}/s")
    return rates[low - 1]


def _keeps_up(site: Site, pipeline: Pipeline, rate: float, scale: Scale) -> bool:
    for _ in range(2):
        run = offer(site, pipeline, rate, scale.searched, 1)
        seen = run.outcome
        say(
            f"{pipeline.name} at {rate:,.0f}/s: {'kept up' if run.kept_up else 'did not keep up'}"
            f" (lag {seen.lag * 1e3:,.0f} ms, {seen.failed} failed, {seen.lost} lost)"
        )
        if run.kept_up or seen.cut or seen.lag > RETRY_LAG:
            return run.kept_up
    return False


def ladder(least: float, most: float, step: float = 1.08) -> list[float]:
    """Rates from `least` to `most`, each `step` times the one before, in round numbers."""
    rates = [least]
    while rates[-1] * step <= most:
        rates.append(rates[-1] * step)
    return [float(round(rate, -1)) for rate in rates]


def measure(site: Site, scale: Scale) -> Section:
    """Ours and Node in turns: first the sustained rates, then times at shares of them."""
    with contextlib.ExitStack() as stack:
        pipelines = [stack.enter_context(ours(site))]
        if not node.missing():
            pipelines.append(stack.enter_context(node_pipeline(site)))
        found = list(_tops(site, pipelines, scale))
        for each in found:
            for share in SHARES:
                name = f"{share:.0%} of sustained"
                each.add(name, offer(site, each.pipeline, each.top.median * share, scale.paced, 2))
        for each in found:
            if each.top.median > FIXED:
                each.add(f"{FIXED:,}/s", offer(site, each.pipeline, FIXED, scale.paced, 2))
    return _section(found)


class _Found(NamedTuple):
    """What was measured of one pipeline: its sustained rate, and runs by name."""

    pipeline: Pipeline
    top: Spread
    runs: dict[str, list[Run]]

    @property
    def name(self) -> str:
        return self.pipeline.name

    def add(self, name: str, run: Run) -> None:
        self.runs.setdefault(name, []).append(run)
        say(f"{self.name} at {name}: event p99 {run.outcome.events.p99:.1f} ms")


def _tops(site: Site, pipelines: Sequence[Pipeline], scale: Scale) -> Iterator[_Found]:
    """The sustained rates, in turns; searches after the first are near the first result."""
    rates = ladder(500, 12_000)
    tops: dict[str, list[float]] = {each.name: [] for each in pipelines}
    for number in range(max(1, scale.rounds - 1)):
        for each in reversed(pipelines) if number % 2 else pipelines:
            near = rates
            if tops[each.name]:
                at = rates.index(tops[each.name][0])
                near = rates[max(0, at - 2) : at + 2]
            tops[each.name].append(sustained(site, each, near, scale))
    for each in pipelines:
        yield _Found(each, Spread.of(tops[each.name]), {})


def _section(found: Sequence[_Found]) -> Section:
    figures = {f"end-to-end.{each.name}.sustained": each.top for each in found}
    rows = []
    for each in found:
        for name, runs in each.runs.items():
            key = f"end-to-end.{each.name}.{name}"
            row = _figures(runs)
            figures |= {f"{key}.{figure}": spread for figure, spread in row.items()}
            cells = [
                f"{spread.median:.{0 if figure[:3] == 'cpu' else 1}f}"
                for figure, spread in row.items()
            ]
            rows.append((f"{each.name}, {name}", f"{runs[0].rate:,.0f}", *cells))
    columns = ["", "POSTs/s", "answer p50", "p99", "p99.9", "event p50", "p99", "p99.9"]
    columns += ["CPU µs: ingress", "worker", "RabbitMQ", "Redis", "load"]
    tops = [(each.name, str(each.top)) for each in found]
    bars = [
        (f"{each.name}, {name}", _figures(runs)["event.p99"])
        for each in found
        for name, runs in each.runs.items()
    ]
    return Section(
        "End to end",
        NOTE,
        figures,
        [
            Table("Sustained", ("", "POSTs/s"), tops),
            Table("Times in ms and CPU for each postback", columns, rows),
        ],
        [
            Bars(
                "end-to-end-rate",
                "End to end, sustained",
                "/s",
                [(each.name, each.top) for each in found],
                [OURS],
            ),
            Bars(
                "end-to-end-time",
                "From POST to event, 99 of 100",
                "ms",
                bars,
                [label for label, _ in bars if label.startswith(OURS)],
            ),
        ],
    )


def _figures(runs: Sequence[Run]) -> dict[str, Spread]:
    """Times in milliseconds and CPU in microseconds, in the order of the table's columns."""
    figures = {
        f"{what}.{level}": Spread.of(
            getattr(getattr(run.outcome, f"{what}s"), level) for run in runs
        )
        for what in ("answer", "event")
        for level in ("p50", "p99", "p999")
    }
    for process in ("ingest", "worker", "rabbitmq", "redis", "load"):
        figures[f"cpu.{process}"] = Spread.of(run.cpu[process] for run in runs)
    return figures
