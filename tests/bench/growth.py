"""Growth: more processes, more records, a longer queue, larger bodies; which costs stay flat."""

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

from deploy.local.child import running
from shared.postback.normalise import decode
from tests.bench import backlog, records, traffic, wrk
from tests.bench.backlog import drain
from tests.bench.measure import Meter, Spread, micro, number
from tests.bench.results import Section, Table
from tests.bench.scale import Scale
from tests.bench.site import Site, say
from tests.bench.worker import BATCH

PROCESSES: Final = (1, 2, 4)
COMPUTED: Final = 50_000
CORES: Final = os.cpu_count() or 1
PADS: Final = (0, 1_000, 8_000, 32_000)
"""Bytes of one more field in a body."""

SMALL: Final = 8
"""Postbacks in a batch of a backlog: then not even the smallest fits into a worker's prefetch."""

NOTE: Final = f"""\
*Flat* means that CPU per postback (for records: also bytes) grows by at most 10 % from the smallest
to the largest size. The figure is the median growth of all rounds, because the speed of a shared
machine can double from one minute to the next. The first table shows how steady this machine is,
and how independent processes affect each other: each process decodes postbacks without a server.

Several ingress processes share {wrk.CONNECTIONS} connections, each with its own `wrk`. Several
workers share one queue. One process and several processes take turns. More processes than cores
(this machine has {CORES}) compete for the cores. They are shown, from one round, but only the
growth up to the number of cores counts.
Records: two postbacks each with all usual fields. Each number of records has a Redis of its own.
They take turns: the worker's own store merges {records.MERGED:,} postbacks in windows of
{records.WINDOW}, and then their records are removed. The figures are the CPU of Redis and all of
its memory (record, reference, keys). Bodies: the ingress alone.
"""


def measure(site: Site, scale: Scale) -> Section:
    """All tables."""
    figures: dict[str, Spread] = {}
    tables = [
        _table("The machine itself", _machine(scale), figures, CORES),
        _table("Ingress processes", _ingresses(site, scale), figures, CORES),
        _table("Workers", _workers(site, scale), figures, CORES),
        _table("Records in Redis", _records(site, scale), figures),
        _table("Postbacks that wait", _backlogs(site, scale), figures),
        _table("Bytes of a body", _bodies(site, scale), figures),
    ]
    return Section("Growth", NOTE, figures, tables)


Rows = Mapping[int, Mapping[str, Sequence[float]]]
"""For each size the figures by name, of each round."""


def _table(title: str, rows: Rows, figures: dict[str, Spread], judged: int = 0) -> Table:
    """A table, and its figures; the first figure of a row must stay flat.

    Args:
        judged: the largest size whose growth counts; 0: all sizes.
    """
    names = list(next(iter(rows.values())))
    last = max(size for size in rows if not judged or size <= max(judged, min(rows)))
    spreads = {
        size: {name: Spread.of(values) for name, values in row.items()}
        for size, row in rows.items()
    }
    for size, row in spreads.items():
        figures.update({f"growth.{title}.{size}.{name}": spread for name, spread in row.items()})
    for name in names:
        pairs = zip(rows[min(rows)][name], rows[last][name], strict=True)
        change = Spread.of(most / least - 1 for least, most in pairs)
        figures[f"growth.{title}.{name}.change"] = change
    return Table(
        title,
        ("", *names),
        [
            *((f"{size:,}", *(str(row[name]) for name in names)) for size, row in spreads.items()),
            (
                f"{min(rows):,} to {last:,}",
                *(_percent(figures[f"growth.{title}.{name}.change"]) for name in names),
            ),
        ],
    )


def _percent(change: Spread) -> str:
    if change.rounds == 1:
        return f"{change.median:+.0%}"
    return f"{change.median:+.0%} ({change.least:+.0%} to {change.most:+.0%})"


def _machine(scale: Scale) -> Rows:
    rounds: dict[int, list[tuple[float]]] = {count: [] for count in PROCESSES}
    for _, count in _turns(scale):
        with ProcessPoolExecutor(count) as processes:
            each = list(processes.map(_compute, range(count)))
        rounds[count].append((sum(each) / count,))
    return {count: _columns(("CPU µs",), rounds[count]) for count in PROCESSES}


def _compute(_number: int) -> float:
    """CPU microseconds for each postback of a computation that takes about a second."""
    bodies = list(traffic.bodies(COMPUTED, "alone"))
    began = time.process_time()
    for body in bodies:
        decode("default", body)
    return micro(time.process_time() - began, COMPUTED)


def _ingresses(site: Site, scale: Scale) -> Rows:
    rounds: dict[int, list[tuple[float, float]]] = {count: [] for count in PROCESSES}
    for number_, count in _turns(scale):
        made = [site.ingest() for _ in range(count)]
        site.reset()
        with running(*(service for service, _ in made)):
            ports = [port for _, port in made]
            _load(site, ports, scale.settle, f"s{number_}")
            meter = Meter({str(port): service.pid or 0 for service, port in made})
            loads = _load(site, ports, scale.seconds, f"m{number_}")
            cpu = micro(sum(meter.spent().values()), sum(each.requests for each in loads))
        rounds[count].append((cpu, sum(each.rate for each in loads)))
        say(f"growth, round {number_ + 1}: {count} ingress: {cpu:.1f} µs")
    return {count: _columns(("CPU µs", "requests/s"), rounds[count]) for count in PROCESSES}


def _turns(scale: Scale) -> list[tuple[int, int]]:
    """Each round with each number of processes, every other round backwards.

    More processes than cores are only shown, so they have one round.
    """
    return [
        (number_, count)
        for number_ in range(scale.growth_rounds)
        for count in sorted(PROCESSES, reverse=bool(number_ % 2))
        if count <= max(CORES, min(PROCESSES)) or number_ == 0
    ]


def _load(site: Site, ports: Sequence[int], seconds: int, run: str, pad: int = 0) -> list[wrk.Load]:
    """Load several ports at once, with as many connections together as one would have."""
    started = []
    connections = wrk.CONNECTIONS // len(ports)
    for port in ports:
        script = Path(site.directory / f"load-{port}.lua")
        traffic.write_lua(script, f"{run}-{port}", pad)
        started.append(wrk.start(port, seconds, script, connections))
    return [wrk.finish(process) for process in started]


def _workers(site: Site, scale: Scale) -> Rows:
    rounds: dict[int, list[tuple[float, float, float]]] = {count: [] for count in PROCESSES}
    fill = backlog.fill_ours(site, BATCH)
    for number_, count in _turns(scale):
        workers = [site.worker() for _ in range(count)]
        site.reset()  # before they start, so that they find an empty queue
        with running(*workers):
            drain(site, workers, fill, backlog.WARM_UP, "warm")
            done = drain(site, workers, fill, scale.backlog, "full")
        cpu = done.micro("worker")
        rounds[count].append((cpu, done.rate, done.micro("redis")))
        say(f"growth, round {number_ + 1}: {count} workers: {cpu:.1f} µs")
    names = ("CPU µs", "postbacks/s", "Redis CPU µs")
    return {count: _columns(names, rounds[count]) for count in PROCESSES}


def _backlogs(site: Site, scale: Scale) -> Rows:
    """Small backlogs several times, because the operating system counts CPU in steps of 10 ms."""
    rounds: dict[int, list[tuple[float, float]]] = {size: [] for size in scale.backlogs}
    fill = backlog.fill_ours(site, SMALL)
    worker = site.worker()
    site.reset()
    with running(worker):
        drain(site, [worker], fill, backlog.WARM_UP, "warm")
        for round_ in range(scale.rounds):
            for size in sorted(scale.backlogs, reverse=bool(round_ % 2)):
                times = max(1, min(20, scale.backlog // size))
                runs = [f"b{round_}s{size}x{time_}" for time_ in range(times)]
                done = [drain(site, [worker], fill, size, run) for run in runs]
                rate = size * times / sum(each.seconds for each in done)
                spent = sum(each.cpu["worker"] for each in done)
                rounds[size].append((micro(spent, size * times), rate))
                say(f"growth, round {round_ + 1}: backlog of {size:,}: {number(rate)}/s")
    return {size: _columns(("CPU µs", "postbacks/s"), rounds[size]) for size in scale.backlogs}


def _records(site: Site, scale: Scale) -> Rows:
    found = records.rounds(site, scale)
    return {size: _columns(records.COLUMNS, found[size]) for size in scale.records}


def _bodies(site: Site, scale: Scale) -> Rows:
    rows = {}
    service, port = site.ingest()
    with running(service):
        for pad in PADS:
            site.reset()
            size = len(traffic.body(1, "x")) + pad
            _load(site, [port], scale.settle, "warm", pad)
            meter = Meter({"ingest": service.pid or 0, "rabbitmq": site.rabbit.pid or 0})
            load = _load(site, [port], scale.settle + 1, "full", pad)[0]
            spent = meter.spent()
            rows[size] = {
                "CPU µs": [micro(spent["ingest"], load.requests)],
                "requests/s": [load.rate],
                "RabbitMQ CPU µs": [micro(spent["rabbitmq"], load.requests)],
            }
            say(f"growth: bodies of {size:,} bytes: {load.rate:,.0f}/s")
    return rows


def _columns(names: Sequence[str], rounds: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    columns = zip(*rounds, strict=True)
    return {name: list(values) for name, values in zip(names, columns, strict=True)}
