"""Worker: postbacks a second and CPU per postback from a full queue."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from deploy.local.child import Child, running
from tests.bench import backlog, node
from tests.bench.backlog import Fill, drain
from tests.bench.measure import Spread
from tests.bench.results import Bars, Section, Table
from tests.bench.scale import Scale
from tests.bench.site import Site, say

BATCH: Final = 32
"""Postbacks in a batch: fewer than under full load, more than at a thousand a second."""

OURS: Final = f"mms-worker, batches of {BATCH}"
OURS_ALONE: Final = "mms-worker, batches of 1"
NODE: Final = "amqplib + ioredis, one by one"
FASTSTREAM: Final = "FastStream, one by one"
CELERY: Final = "Celery, one by one"
WEAK: Final = frozenset({FASTSTREAM, CELERY})
"""Workers that are far slower than ours: they are measured in every second round."""

NOTE: Final = """\
One worker starts with a full queue of postbacks in JSON. Each message has two postbacks, and one of
them is terminal and leads to an event. All workers do the same work: decode, run two Lua scripts in
Redis (the record and the customer's reference; `appendfsync always`), publish the event with a
confirm, acknowledge. amqplib has a prefetch of 500 and FastStream of 100, so that many postbacks
are in work at the same time, and ioredis sends all calls of one turn of the event loop together.
The peers in Python share our decoding and rules. The one in Node has its own, which are simpler (no
XML, no limits). Celery has one worker process and one main process, whose CPU counts too. The order
alternates between rounds. FastStream and Celery are measured in every second round.
"""


class _Case(NamedTuple):
    make: Callable[[Site], Child]
    fill: Callable[[Site], Fill]
    share: float  # of the scale's backlog, so that slow workers do not need minutes
    warm_up: int = backlog.WARM_UP


CASES: Final = {
    OURS: _Case(Site.worker, lambda site: backlog.fill_ours(site, BATCH), 1),
    OURS_ALONE: _Case(Site.worker, lambda site: backlog.fill_ours(site, 1), 0.5),
    NODE: _Case(node.worker, backlog.fill_node, 1, backlog.WARM_UP_NODE),
    FASTSTREAM: _Case(Site.faststream_worker, backlog.fill_faststream, 0.25),
    CELERY: _Case(Site.celery_worker, backlog.fill_celery, 0.15),
}


def measure(site: Site, scale: Scale) -> Section:
    """All workers in turn, some rounds."""
    figures: dict[str, list[float]] = defaultdict(list)
    cases = [name for name in CASES if name != NODE or not node.missing()]
    for number in range(scale.rounds):
        for name in sorted(cases, reverse=bool(number % 2)):
            if number % 2 and name in WEAK:
                continue
            site.reset()
            case = CASES[name]
            child, fill = case.make(site), case.fill(site)
            with running(child):
                drain(site, [child], fill, case.warm_up, "warm")
                done = drain(site, [child], fill, int(scale.backlog * case.share) // 2 * 2, "full")
            figures[f"{name}.rate"].append(done.rate)
            for process in ("worker", "redis", "rabbitmq"):
                figures[f"{name}.{process}"].append(done.micro(process))
            cpu = done.micro("worker")
            say(f"worker, round {number + 1}: {name}: {done.rate:,.0f}/s, {cpu:.0f} µs")
    return _section(cases, {name: Spread.of(values) for name, values in figures.items()})


def _section(cases: Sequence[str], figures: dict[str, Spread]) -> Section:
    ours = figures[f"{OURS}.rate"].median
    rows = [
        (
            name,
            str(figures[f"{name}.rate"]),
            f"{ours / figures[f'{name}.rate'].median:.1f}",
            str(figures[f"{name}.worker"]),
            f"{figures[f'{name}.redis'].median:.0f}",
            f"{figures[f'{name}.rabbitmq'].median:.0f}",
        )
        for name in cases
    ]
    columns = ["", "postbacks/s", "ours ÷ it", "CPU µs", "Redis CPU µs", "RabbitMQ CPU µs"]
    return Section(
        "Worker",
        NOTE,
        {f"worker.{name}": spread for name, spread in figures.items()},
        [Table("Worker", columns, rows)],
        [
            Bars(
                "worker-rate",
                "Worker, postbacks from a full queue",
                "/s",
                [(name, figures[f"{name}.rate"]) for name in cases],
                [OURS, OURS_ALONE],
            ),
            Bars(
                "worker-cpu",
                "Worker, CPU of the process for each postback",
                "µs",
                [(name, figures[f"{name}.worker"]) for name in cases],
                [OURS, OURS_ALONE],
            ),
        ],
    )
