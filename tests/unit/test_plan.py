"""The arithmetic of a plan: by hand for one rate, and the laws for all rates."""

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from shared.settings.settings import Settings
from shared.settings.units import Bytes
from workers.admin.plan import capacity
from workers.admin.plan.capacity import Costs, Load
from workers.admin.plan.command import show_plan
from workers.admin.plan.report import Need, plan

COSTS = Costs(
    ingress=100,
    worker=200,
    rabbitmq=50,
    redis=20,
    record_bytes=1_000,
    event_bytes=800,
    envelope_bytes=50,
)


def test_the_arithmetic_by_hand() -> None:
    load = Load(rate=10_000, body=450, busy=0.5, ttl=86_400, retention=86_400)
    assert capacity.ingresses(load, COSTS) == 2  # 10,000 x 100 µs = 1 core, half busy
    assert capacity.workers(load, COSTS) == 4
    assert capacity.clusters(load, COSTS) == 1
    assert capacity.redis_bytes(load, COSTS) == 5_000 * 86_400 * 1_000
    assert capacity.shards(load, COSTS) == 13  # 432 GB at 32 GiB; CPU alone would need one
    assert capacity.archive_bytes(load, COSTS) == 10_000 * 86_400 * 500
    assert capacity.log_bytes(load, COSTS) == 5_000 * 86_400 * 800
    # 1 core of RabbitMQ in each of three nodes, 1 of Redis; 402.3 GiB
    assert capacity.cores(load, COSTS) == 2 + 4 + 3 * 1 + 1
    assert capacity.price(load, COSTS) == pytest.approx(10 * 20 + 402.33 * 4, rel=1e-4)


def test_there_are_at_least_two_of_each_process() -> None:
    load = Load(rate=1)
    assert capacity.ingresses(load) == capacity.workers(load) == 2
    assert capacity.clusters(load) == capacity.shards(load) == 1


def test_storage_follows_the_mean_rate_and_processes_follow_the_peak() -> None:
    steady, peaky = Load(rate=5_000), Load(rate=5_000, mean=0.1)
    assert capacity.workers(peaky) == capacity.workers(steady)
    assert capacity.redis_bytes(peaky) == pytest.approx(capacity.redis_bytes(steady) / 10)


@given(rate=st.floats(1, 1e6), more=st.floats(1, 100))
def test_a_higher_rate_never_needs_less(rate: float, more: float) -> None:
    low, high = Load(rate=rate), Load(rate=rate * more)
    for need in (
        capacity.ingresses,
        capacity.workers,
        capacity.clusters,
        capacity.shards,
        capacity.price,
    ):
        assert need(high) >= need(low)


@given(rate=st.floats(1, 1e6))
def test_no_process_is_busier_than_allowed(rate: float) -> None:
    load = Load(rate=rate)
    busy = rate * capacity.MEASURED.worker * 1e-6 / capacity.workers(load)
    assert busy <= load.busy * (1 + 1e-9)


def test_an_archive_that_is_too_small_is_reported() -> None:
    load = Load(rate=1_000)
    by_name = {need.what: need.amount for need in plan(load)}
    assert by_name["MMS_ARCHIVE_MAX_BYTES"].startswith("set it to")
    large = msgspec.structs.replace(Settings(), archive_max_bytes=Bytes(2**42))
    by_name = {need.what: need.amount for need in plan(load, settings=large)}
    assert by_name["MMS_ARCHIVE_MAX_BYTES"] == "enough"


def test_the_command_prints_the_same_plan() -> None:
    done = CliRunner().invoke(show_plan, ["--rate", "50000", "--ttl", "1d", "--json"])
    assert done.exit_code == 0
    lines = [msgspec.json.decode(line, type=Need) for line in done.output.splitlines()]
    assert lines == plan(Load(rate=50_000, ttl=86_400))
    priced = CliRunner().invoke(show_plan, ["--rate", "1", "--gib-price", "5", "--json"])
    assert "5 € a GiB" in priced.output
    table = CliRunner().invoke(show_plan, ["--rate", "50000"])
    assert "mms-worker" in table.output


def test_an_invalid_duration_is_refused() -> None:
    done = CliRunner().invoke(show_plan, ["--rate", "10", "--ttl", "soon"])
    assert done.exit_code == 2
    assert "30s, 12h or 7d" in done.output
