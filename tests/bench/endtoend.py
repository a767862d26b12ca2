"""End to end: the sustained rate, and the times from a POST to its response and to its event."""

import contextlib
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from deploy.local.child import Child, running
from tests.bench.measure import Meter, Spread, micro
from tests.bench.pacer import Job, Outcome
from tests.bench.results import Bars, Section, Table
from tests.bench.scale import Scale
from tests.bench.site import ROOT, Site, say
from tests.bench.wrk import LoadError

OURS: Final = "mms-ingest + mms-worker"
CELERY: Final = "FastAPI + Celery"

MAX_LAG: Final = 0.25
"""Seconds; a rate counts as sustained if at its end responses and events are not later."""

RETRY_LAG: Final = 1.0
"""Seconds; a rate with a larger lag is not tried again."""

WATCHED: Final = 250
"""Messages a second whose events are awaited."""

SHARES: Final = (0.25, 0.5, 0.75)
FIXED: Final = 1_000

NOTE: Final = f"""\
One ingress and one worker (Celery: one uvicorn, one Celery worker with two processes), RabbitMQ,
Redis, the load generator and the subscriber, all on this machine. POSTs leave at a fixed rate,
whether or not earlier ones were answered, and times count from when a POST was due. *Sustained* is
the highest rate, in steps of 8 %, at which half of all responses and events in the last tenth of
the run still came within {MAX_LAG * 1e3:.0f} ms, all POSTs were answered 200, and no event was
missing. The time of an event is when a subscriber has it; about 250 messages a second are watched.
A rate that just fails is tried once more, because the speed of a machine varies.
"""


_runs: Final = itertools.count()


class Pipeline(NamedTuple):
    """Processes that take POSTs on a port and publish events."""

    name: str
    children: dict[str, Child]
    port: int


@contextlib.contextmanager
def ours(site: Site) -> Iterator[Pipeline]:
    """Run one ingress and one worker of ours."""
    ingest, port = site.ingest()
    pipeline = Pipeline(OURS, {"ingest": ingest, "worker": site.worker()}, port)
    with running(*pipeline.children.values()):
        yield pipeline


@contextlib.contextmanager
def celery(site: Site) -> Iterator[Pipeline]:
    """Run FastAPI and Celery."""
    web = site.peer("fastapi_celery")
    worker = site.celery_worker(concurrency=2)
    with running(web, worker):
        yield Pipeline(CELERY, {"ingest": web, "worker": worker}, web.port)


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
    """Ours, then FastAPI and Celery: first the sustained rate, then times at shares of it."""
    found = [
        _measured(site, scale, ours, ladder(500, 12_000), max(1, scale.rounds - 1)),
        _measured(site, scale, celery, ladder(60, 2_000), 1),
    ]
    return _section(found)


class _Found(NamedTuple):
    name: str
    top: Spread
    runs: dict[str, list[Run]]


def _measured(
    site: Site,
    scale: Scale,
    make: Callable[[Site], contextlib.AbstractContextManager[Pipeline]],
    rates: Sequence[float],
    rounds: int,
) -> _Found:
    with make(site) as pipeline:
        top = _top(site, pipeline, rates, scale, rounds)
        offers = {f"{share:.0%} of sustained": top.median * share for share in SHARES}
        if top.median > FIXED:
            offers[f"{FIXED:,}/s"] = FIXED
        runs: dict[str, list[Run]] = {}
        for name, rate in offers.items():
            times = scale.rounds if rate == FIXED else 1
            runs[name] = [offer(site, pipeline, rate, scale.paced, 2) for _ in range(times)]
            slowest = max(run.outcome.events.p99 for run in runs[name])
            say(f"{pipeline.name} at {name}: event p99 {slowest:.1f} ms")
        return _Found(pipeline.name, top, runs)


def _top(
    site: Site, pipeline: Pipeline, rates: Sequence[float], scale: Scale, rounds: int
) -> Spread:
    """The sustained rate of several rounds; those after the first search near the first result."""
    tops = [sustained(site, pipeline, rates, scale)]
    for _ in range(1, rounds):
        at = rates.index(tops[0])
        near = rates[max(0, at - 2) : at + 2]
        tops.append(sustained(site, pipeline, near, scale))
    return Spread.of(tops)


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
