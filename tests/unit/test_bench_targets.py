"""The arithmetic of the benchmark's summaries, with figures that are easy to check by hand."""

import pytest

from tests.bench import endtoend, growth, needs, targets, waiting
from tests.bench.measure import Spread

STATIONS = {"ingest": 60.0, "worker": 100.0, "rabbitmq": 120.0, "redis": 20.0}
FULL = f"end-to-end.{endtoend.OURS}.{endtoend.FULL}.cpu"


def figures() -> dict[str, Spread]:
    found = {f"{FULL}.{name}": micro for name, micro in STATIONS.items()}
    found |= {
        f"waiting.{needs.PAIR}.{side}.cpu.{name}": micro * times
        for side, times in ((waiting.DEFAULT, 1), (waiting.NEVER, 4))
        for name, micro in STATIONS.items()
    }
    found |= {
        f"end-to-end.{endtoend.OURS}.sustained": 2_000.0 * growth.CORES,
        "growth.Records in Redis.10000.bytes a record": 500.0,
        "growth.Records in Redis.100000.bytes a record": 429.0,
        "waiting.1000.ratio": 0.5,
    }
    return {name: Spread.of([value]) for name, value in found.items()}


def test_a_target_is_missed_or_reached_or_its_aim_is() -> None:
    rows = {row[0]: row[-2:] for row in targets.table(figures()).rows}
    # 2,000/s for each core, at 300 µs, are 60 % of it
    share = "sustained end to end ÷ (cores ÷ CPU of a postback at full load)"
    assert rows[share] == ("0.60", "no")
    assert rows["Redis bytes for a finished record"] == ("429", "the aim")
    waits = "CPU of ingress, worker, RabbitMQ and Redis at 1,000/s ÷ MMS_LINGER=0"
    assert rows[waits] == ("0.50", "yes")
    assert rows["ingress ÷ Fastify, 16 connections"] == ("not measured", "")


def test_a_load_needs_less_after_than_before() -> None:
    small, _, large = needs.section(figures()).tables[0].rows
    # 2,000 postbacks/s: 240, 400, 480 and 80 µs before; two processes at least of each kind
    assert small[:3] == ("1,000", f"{2 + 2 + 3 * 2 + 1}", f"{2 + 2 + 3 * 1 + 1}")
    gib = 100_000 * 0.4 * 86_400 * 429 / 2**30
    assert float(large[4].replace(",", "")) == pytest.approx(gib, rel=1e-3)
    assert float(large[3].replace(",", "")) == pytest.approx(2 * gib, rel=1e-3)


def test_a_run_without_the_figures_has_no_such_table() -> None:
    with pytest.raises((KeyError, ValueError)):
        needs.section({})
