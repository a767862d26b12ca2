"""Ingress by connections: requests that wait at the same time share the latency of a confirm."""

from collections import defaultdict
from typing import Final

from deploy.local.child import running
from tests.bench import traffic
from tests.bench.ingress import FLOOR, OURS, Server, load
from tests.bench.measure import Spread
from tests.bench.results import Section, Table
from tests.bench.scale import Scale
from tests.bench.site import Site, say

CONNECTIONS: Final = (16, 64, 256)

NOTE: Final = """\
Our ingress and the floor take turns, as above, with fewer and more connections. `wrk` sends the
next request of a connection when the last one is answered. So the rate of a server that waits for
RabbitMQ grows with the number of connections, until the CPU is the limit. The floor does not wait.
"""


def measure(site: Site, scale: Scale) -> Section:
    """Both in turn, some rounds for each number of connections."""
    script = site.directory / "connections.lua"
    ours, port = site.ingest()
    floor = site.peer("floor")
    servers = {OURS: Server(ours, port), FLOOR: Server(floor, floor.port)}
    found: dict[str, list[float]] = defaultdict(list)
    with running(ours, floor):
        for connections in CONNECTIONS:
            for number in range(scale.rounds):
                for name in sorted(servers, reverse=bool(number % 2)):
                    site.reset()
                    traffic.write_lua(script, f"c{connections}-{number}")
                    figures = load(site, servers[name], scale, script, connections)
                    for figure, value in figures.items():
                        found[f"{connections}.{name}.{figure}"].append(value)
            rate = Spread.of(found[f"{connections}.{OURS}.rate"])
            say(f"ingress with {connections} connections: {rate}/s")
    figures_ = {name: Spread.of(values) for name, values in found.items()}
    return Section(
        "Ingress by connections",
        NOTE,
        {f"connections.{name}": spread for name, spread in figures_.items()},
        [_table(figures_)],
    )


def _table(figures: dict[str, Spread]) -> Table:
    rows = []
    for connections in CONNECTIONS:
        ours, floor = (f"{connections}.{name}" for name in (OURS, FLOOR))
        rows.append(
            (
                str(connections),
                str(figures[f"{ours}.rate"]),
                str(figures[f"{floor}.rate"]),
                f"{figures[f'{ours}.rate'].median / figures[f'{floor}.rate'].median:.2f}",
                str(figures[f"{ours}.cpu"]),
                f"{figures[f'{ours}.cpu'].median / figures[f'{floor}.cpu'].median:.2f}",
                f"{figures[f'{ours}.rabbitmq'].median:.1f}",
                f"{figures[f'{ours}.batch'].median:.0f}",
                f"{figures[f'{ours}.p50'].median:.1f}",
                f"{figures[f'{ours}.p99'].median:.1f}",
            )
        )
    columns = ["connections", "ours/s", "floor/s", "ours ÷ floor", "ours CPU µs", "÷ floor"]
    columns += ["RabbitMQ CPU µs", "batch", "p50 ms", "p99 ms"]
    return Table("Ours and the floor", columns, rows)
