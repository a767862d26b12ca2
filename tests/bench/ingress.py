"""Ingress: requests a second and CPU per request of our ingress and the peers."""

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from deploy.local.child import Child, running
from deploy.local.ports import free_port
from deploy.local.services import Service
from tests.bench import connections, faults, node, traffic, wrk
from tests.bench.measure import Meter, Spread, micro
from tests.bench.nginx import nginx
from tests.bench.results import Bars, Section, Table
from tests.bench.scale import Scale
from tests.bench.site import Site, say

OURS = "mms-ingest"
FLOOR = "floor: aiohttp, keeps nothing"
APPLICATION = "floor with web.Application"
NGINX = "nginx, keeps nothing"
NODE = "Fastify + amqplib"
ONE_CONFIRM = "aiohttp + aio-pika"
FASTSTREAM = "FastAPI + FastStream"
CELERY = "FastAPI + Celery"
CONNECTIONS: Final = (16, 64, wrk.CONNECTIONS)

NOTHING_KEPT = frozenset({NGINX, FLOOR, APPLICATION})
"""Servers that do not need RabbitMQ, because they keep nothing."""

WEAK = frozenset({NGINX, APPLICATION, ONE_CONFIRM, FASTSTREAM, CELERY})
"""Servers that are far from ours, in either direction: they are loaded in every second round."""

NOTE = f"""\
`wrk` with one thread and {wrk.CONNECTIONS} connections sends POSTs of about 400 bytes, and each
message has an id of its own. All servers run. They are loaded in turn in several rounds, in reverse
order in every second round, which leaves out the servers that are far from ours: nginx, the floor
with web.Application, and the peers in Python. Figures are medians, with the lowest and highest
value in brackets. Everything shares the machine's cores, so throughput includes the cost of
RabbitMQ and of the load generator. *CPU* is that of the process alone (user and system, from
/proc). All servers but nginx and the two floors answer after RabbitMQ has confirmed the persistent
postback in a quorum queue (with `mandatory`, which Celery's `delay` does not support). Ours is
confirmed in the archive stream too, which the others do not have. nginx shows the limit of the
machine and `wrk`: a server far below it was not limited by the load generator.

Our ingress, the strongest peer and the floor are loaded with fewer connections too. `wrk` sends the
next request of a connection when the last one is answered. So the rate of a server that waits for
RabbitMQ grows with the number of connections, until the CPU is the limit. The floor does not wait.
*Ours ÷ it* is there the median of the ratios within each round.
"""


class Server(NamedTuple):
    """A server under load, and its port."""

    child: Child
    port: int


def measure(site: Site, scale: Scale) -> Section:
    """All servers in turn, some rounds for each number of connections."""
    script = site.directory / "ingress.lua"
    found: dict[str, list[float]] = defaultdict(list)
    with _servers(site) as servers:
        for name, server in servers.items():
            say(f"ingress: warming up {name}")
            _warm_up(name, server, scale, script)
        for count in CONNECTIONS:
            for number in range(scale.rounds):
                for name in sorted(servers, reverse=bool(number % 2)):
                    if name in WEAK and (number % 2 or count != wrk.CONNECTIONS):
                        continue
                    site.reset()
                    traffic.write_lua(script, f"c{count}-{number}")
                    figures = load(site, servers[name], scale, script, count)
                    for figure, value in figures.items():
                        found[f"{count}.{name}.{figure}"].append(value)
                    say(
                        f"ingress, {count} connections, round {number + 1}: {name}:"
                        f" {figures['rate']:,.0f}/s, {figures['cpu']:.0f} µs"
                    )
        kept = {name: each.port for name, each in servers.items() if name not in NOTHING_KEPT}
        answers = faults.observe(site, kept)
    return _section(found, answers)


@contextlib.contextmanager
def _servers(site: Site) -> Iterator[dict[str, Server]]:
    ours, port = site.ingest()
    nginx_port = free_port()
    servers = {OURS: Server(ours, port), NGINX: Server(nginx(site, nginx_port), nginx_port)}
    for name, module, arguments in (
        (FLOOR, "floor", ()),
        (APPLICATION, "floor", ("--application",)),
        (ONE_CONFIRM, "aiohttp_aio_pika", ()),
        (FASTSTREAM, "fastapi_faststream", ()),
        (CELERY, "fastapi_celery", ()),
    ):
        peer = site.peer(module, *arguments)
        servers[name] = Server(peer, peer.port)
    if not node.missing():
        peer = node.ingress(site)
        servers[NODE] = Server(peer, peer.port)
    say("ingress: starting all servers")
    with running(*(server.child for server in servers.values())):
        yield servers


def _warm_up(name: str, server: Server, scale: Scale, script: Path) -> None:
    """Load one server before it is measured; Node for longer, because it compiles meanwhile."""
    traffic.write_lua(script, "warm")
    wrk.run(server.port, scale.warm_up * (3 if name == NODE else 1), script)


def load(
    site: Site, server: Server, scale: Scale, script: Path, connections: int = wrk.CONNECTIONS
) -> dict[str, float]:
    """Load one server for a while; its figures by name."""
    wrk.run(server.port, scale.settle, script, connections)
    batches = batch_counts(server.child)
    meter = Meter(
        {
            "server": server.child.pid or 0,
            "rabbitmq": site.rabbit.pid or 0,
        }
    )
    seen = wrk.run(server.port, scale.seconds, script, connections)
    spent = meter.spent()
    figures = {
        "rate": seen.rate,
        "cpu": micro(spent["server"], seen.requests),
        "rabbitmq": micro(spent["rabbitmq"], seen.requests),
        "wrk": micro(seen.cpu, seen.requests),
        "p50": seen.p50,
        "p99": seen.p99,
    }
    if batches is not None:
        after = batch_counts(server.child) or (0, 0)
        figures["batch"] = (after[0] - batches[0]) / max(after[1] - batches[1], 1)
    return figures


def batch_counts(child: Child) -> tuple[float, float] | None:
    """Postbacks and batches so far, if this is an ingress of ours.

    Raises:
        LoadError: it has used its spool, so the result is not that of publishing to RabbitMQ.
    """
    if not isinstance(child, Service):
        return None
    metrics = dict(
        line.rsplit(" ", 1) for line in child.ask("/metrics")[1].splitlines() if line[0] != "#"
    )
    if float(metrics["mms_ingest_spooled_total"]):
        raise wrk.LoadError("the ingress has used its spool")
    sums = (metrics[f"mms_ingest_batch_postbacks_{each}"] for each in ("sum", "count"))
    postbacks, batches = map(float, sums)
    return postbacks, batches


def _section(found: Mapping[str, list[float]], answers: Mapping[str, faults.Statuses]) -> Section:
    most = f"{wrk.CONNECTIONS}."
    figures = {
        name.removeprefix(most): Spread.of(values)
        for name, values in found.items()
        if name.startswith(most)
    }
    for fault, statuses in answers.items():
        figures |= {f"{name}.{fault}": Spread.of([each]) for name, each in statuses.items()}
    compared = connections.compare(found, CONNECTIONS, (OURS, NODE, FLOOR))
    order = (NGINX, FLOOR, APPLICATION, OURS, NODE, ONE_CONFIRM, FASTSTREAM, CELERY)
    names = [name for name in order if f"{name}.rate" in figures]
    floor, floor_cpu = figures[f"{FLOOR}.rate"].median, figures[f"{FLOOR}.cpu"].median
    ours = figures[f"{OURS}.rate"].median
    rows = []
    for name in names:
        rate, cpu = figures[f"{name}.rate"], figures[f"{name}.cpu"]
        rows.append(
            (
                name,
                str(rate),
                f"{rate.median / floor:.2f}",
                f"{ours / rate.median:.1f}",
                str(cpu),
                f"{cpu.median / floor_cpu:.2f}",
                f"{figures[f'{name}.rabbitmq'].median:.0f}",
                f"{figures[f'{name}.wrk'].median:.0f}",
                f"{figures[f'{name}.p50'].median:.1f}",
                f"{figures[f'{name}.p99'].median:.1f}",
            )
        )
    columns = ["", "requests/s", "÷ floor", "ours ÷ it", "CPU µs", "÷ floor"]
    columns += ["RabbitMQ CPU µs", "wrk CPU µs", "p50 ms", "p99 ms"]
    batch = figures[f"{OURS}.batch"]
    table = Table(f"Ingress; ours made batches of {batch} postbacks", columns, rows)
    shown = [name for name in names if name != NGINX]
    return Section(
        "Ingress",
        NOTE,
        {f"ingress.{name}": spread for name, spread in figures.items()} | compared.figures,
        [table, compared.table],
        [
            Bars(
                "ingress-rate",
                "Ingress, requests answered 200",
                "/s",
                [(name, figures[f"{name}.rate"]) for name in shown],
                [OURS],
            ),
            Bars(
                "ingress-cpu",
                "Ingress, CPU of the process for each request",
                "µs",
                [(name, figures[f"{name}.cpu"]) for name in shown],
                [OURS],
            ),
        ],
    )
