"""Ours and others by connections: requests that wait at the same time share a confirm's latency."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from tests.bench.measure import Spread
from tests.bench.results import Table

RATIOS: Final = ("rate", "cpu")
"""The figures of which the ratio to ours is computed in each round."""


class Compared(NamedTuple):
    """The comparison.

    Attributes:
        figures: `connections.<number>.<server>.<figure>`. Those named `rate ÷ <server>` and
            `cpu ÷ <server>` are ours divided by those of the server, round by round.
    """

    figures: dict[str, Spread]
    table: Table


def compare(
    found: Mapping[str, Sequence[float]], counts: Sequence[int], servers: Sequence[str]
) -> Compared:
    """Compare servers with the first of them.

    Args:
        found: figures of all rounds, by `<number of connections>.<server>.<figure>`.
        counts: numbers of connections.
        servers: those that were not measured are left out.
    """
    names = [name for name in servers if f"{counts[0]}.{name}.rate" in found]
    figures = {
        name: Spread.of(values)
        for name, values in found.items()
        if name.split(".", 1)[1].rsplit(".", 1)[0] in names
    }
    for count in counts:
        for name in names:
            for figure in RATIOS:
                pairs = zip(
                    found[f"{count}.{names[0]}.{figure}"],
                    found[f"{count}.{name}.{figure}"],
                    strict=True,
                )
                ratios = [ours / other for ours, other in pairs]
                figures[f"{count}.{figure} ÷ {name}"] = Spread.of(ratios)
    rows = [row for count in counts for row in _rows(figures, count, names)]
    columns = ["connections", "requests/s", "ours ÷ it", "CPU µs", "ours ÷ it", "RabbitMQ CPU µs"]
    columns += ["batch", "p50 ms", "p99 ms"]
    return Compared(
        {f"connections.{name}": spread for name, spread in figures.items()},
        Table("Ingress by connections", columns, rows),
    )


def _rows(
    figures: Mapping[str, Spread], count: int, names: Sequence[str]
) -> Iterator[tuple[str, ...]]:
    for name in names:
        key = f"{count}.{name}"
        batch = figures.get(f"{key}.batch")
        yield (
            f"{count}, {name}",
            str(figures[f"{key}.rate"]),
            f"{figures[f'{count}.rate ÷ {name}'].median:.2f}",
            str(figures[f"{key}.cpu"]),
            f"{figures[f'{count}.cpu ÷ {name}'].median:.2f}",
            f"{figures[f'{key}.rabbitmq'].median:.1f}",
            f"{batch.median:.0f}" if batch else "",
            f"{figures[f'{key}.p50'].median:.1f}",
            f"{figures[f'{key}.p99'].median:.1f}",
        )
