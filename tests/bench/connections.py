"""Ingress by connections: requests that wait at the same time share the latency of a confirm."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from deploy.local.child import running
from tests.bench import node, traffic
from tests.bench.ingress import FLOOR, NODE, OURS, Server, load, warm_up
from tests.bench.measure import Spread
from tests.bench.results import Section, Table
from tests.bench.scale import Scale
from tests.bench.site import Site, say

CONNECTIONS: Final = (16, 64, 256)

NOTE: Final = """\
Our ingress, the strongest peer and the floor take turns, as above, with fewer and more connections.
`wrk` sends the next request of a connection when the last one is answered. So the rate of a server
that waits for RabbitMQ grows with the number of connections, until the CPU is the limit. The floor
does not wait. *Ours ÷ it* is the median of the ratios within each round.
"""

RATIOS: Final = ("rate", "cpu")
"""The figures of which the ratio to ours is computed in each round."""


def measure(site: Site, scale: Scale) -> Section:
    """All in turn, some rounds for each number of connections."""
    ours, port = site.ingest()
    floor = site.peer("floor")
    servers = {OURS: Server(ours, port), FLOOR: Server(floor, floor.port)}
    if not node.missing():
        peer = node.ingress(site)
        servers[NODE] = Server(peer, peer.port)
    script = site.directory / "connections.lua"
    found: dict[str, list[float]] = defaultdict(list)
    with running(*(server.child for server in servers.values())):
        for name, server in servers.items():
            warm_up(name, server, scale, script)
        for connections in CONNECTIONS:
            for number in range(scale.rounds):
                for name in sorted(servers, reverse=bool(number % 2)):
                    site.reset()
                    traffic.write_lua(script, f"c{connections}-{number}")
                    figures = load(site, servers[name], scale, script, connections)
                    for figure, value in figures.items():
                        found[f"{connections}.{name}.{figure}"].append(value)
            for name in servers:
                rate = Spread.of(found[f"{connections}.{name}.rate"])
                say(f"ingress with {connections} connections: {name}: {rate}/s")
    return _section(list(servers), found)


def _section(names: list[str], found: Mapping[str, list[float]]) -> Section:
    figures = {name: Spread.of(values) for name, values in found.items()}
    for connections in CONNECTIONS:
        for name in names:
            for figure in RATIOS:
                pairs = zip(
                    found[f"{connections}.{OURS}.{figure}"],
                    found[f"{connections}.{name}.{figure}"],
                    strict=True,
                )
                key = f"{connections}.{figure} ÷ {name}"
                figures[key] = Spread.of(ours / other for ours, other in pairs)
    return Section(
        "Ingress by connections",
        NOTE,
        {f"connections.{name}": spread for name, spread in figures.items()},
        [_table(names, figures)],
    )


def _table(names: list[str], figures: Mapping[str, Spread]) -> Table:
    rows = []
    for connections in CONNECTIONS:
        for name in (each for each in (OURS, NODE, FLOOR) if each in names):
            key = f"{connections}.{name}"
            batch = figures.get(f"{key}.batch")
            rows.append(
                (
                    f"{connections}, {name}",
                    str(figures[f"{key}.rate"]),
                    f"{figures[f'{connections}.rate ÷ {name}'].median:.2f}",
                    str(figures[f"{key}.cpu"]),
                    f"{figures[f'{connections}.cpu ÷ {name}'].median:.2f}",
                    f"{figures[f'{key}.rabbitmq'].median:.1f}",
                    f"{batch.median:.0f}" if batch else "",
                    f"{figures[f'{key}.p50'].median:.1f}",
                    f"{figures[f'{key}.p99'].median:.1f}",
                )
            )
    columns = ["connections", "requests/s", "ours ÷ it", "CPU µs", "ours ÷ it", "RabbitMQ CPU µs"]
    columns += ["batch", "p50 ms", "p99 ms"]
    return Table("Ours, the strongest peer and the floor", columns, rows)
