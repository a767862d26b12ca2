"""Waiting for fuller batches: CPU and times at moderate rates, with `MMS_LINGER` and without."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from tests.bench import endtoend
from tests.bench.measure import Spread
from tests.bench.results import Section, Table
from tests.bench.scale import Scale
from tests.bench.site import Site, say

RATES: Final = (200, 1_000, 2_500)
"""POSTs a second. At all of them a batch that never waits holds few postbacks. The first is so low
that waiting gains nothing: one round shows it."""

DEFAULT: Final = "default"
NEVER: Final = "MMS_LINGER=0"
SIDES: Final[Mapping[str, Mapping[str, str]]] = {DEFAULT: {}, NEVER: {"MMS_LINGER": "0"}}
STATIONS: Final = ("ingest", "worker", "rabbitmq", "redis")
WARM_UP: Final = 2.0
"""Seconds of load before responses and events are timed."""

NOTE: Final = """\
One ingress and one worker, RabbitMQ and Redis, under load at a fixed rate as in the section above.
Both sides take turns at each rate: `MMS_LINGER` at its default, and 0, with which a batch never
waits to fill. *CPU* is that of ingress, worker, RabbitMQ and Redis together for one postback, with
what they spend while they wait. The ratio is the median of the ratios within each round.
"""


def measure(site: Site, scale: Scale) -> Section:
    """Both sides in turn at each rate, some rounds."""
    found: dict[str, list[float]] = defaultdict(list)
    for number in range(scale.rounds):
        for rate in RATES if number == 0 else RATES[1:]:
            for side in sorted(SIDES, reverse=bool(number % 2)):
                with endtoend.ours(site, SIDES[side]) as pipeline:
                    run = endtoend.offer(site, pipeline, rate, scale.waited, WARM_UP)
                for name, value in _figures(run).items():
                    found[f"{rate}.{side}.{name}"].append(value)
                cpu = found[f"{rate}.{side}.cpu"][-1]
                say(f"waiting, round {number + 1}: {rate:,}/s, {side}: {cpu:,.0f} µs")
    figures = {name: Spread.of(values) for name, values in found.items()}
    for rate in RATES:
        pairs = zip(found[f"{rate}.{DEFAULT}.cpu"], found[f"{rate}.{NEVER}.cpu"], strict=True)
        figures[f"{rate}.ratio"] = Spread.of(waits / never for waits, never in pairs)
    return Section(
        "Waiting for fuller batches",
        NOTE,
        {f"waiting.{name}": spread for name, spread in figures.items()},
        [_table(figures)],
    )


def _figures(run: endtoend.Run) -> dict[str, float]:
    """CPU in microseconds, of each and together; times in milliseconds."""
    seen = run.outcome
    each = {f"cpu.{name}": run.cpu[name] for name in STATIONS}
    return {
        "cpu": sum(each.values()),
        **each,
        "answer.p50": seen.answers.p50,
        "answer.p99": seen.answers.p99,
        "event.p50": seen.events.p50,
        "event.p99": seen.events.p99,
    }


def _table(figures: Mapping[str, Spread]) -> Table:
    rows = [
        (
            f"{rate:,}/s, {side}",
            str(figures[f"{rate}.{side}.cpu"]),
            str(figures[f"{rate}.ratio"]) if side == DEFAULT else "1",
            *_medians(figures, f"{rate}.{side}", [f"cpu.{name}" for name in STATIONS], 0),
            *_medians(figures, f"{rate}.{side}", TIMES, 1),
        )
        for rate in RATES
        for side in SIDES
    ]
    columns = ["", "CPU µs", "÷ MMS_LINGER=0", "ingress", "worker", "RabbitMQ", "Redis"]
    columns += ["answer p50 ms", "p99", "event p50", "p99"]
    return Table("CPU for each postback, and times", columns, rows)


TIMES: Final = ("answer.p50", "answer.p99", "event.p50", "event.p99")


def _medians(
    figures: Mapping[str, Spread], prefix: str, names: Sequence[str], digits: int
) -> list[str]:
    return [f"{figures[f'{prefix}.{name}'].median:,.{digits}f}" for name in names]
