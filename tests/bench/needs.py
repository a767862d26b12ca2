"""What a number of messages a second needs in cores, memory and euros, before and after."""

from collections.abc import Mapping
from typing import Final

import msgspec

from tests.bench import endtoend, waiting
from tests.bench.measure import Spread, number
from tests.bench.results import Section, Table
from workers.admin.plan import capacity
from workers.admin.plan.capacity import MEASURED, Costs, Load

MESSAGES: Final = (1_000, 10_000, 100_000)
LOAD: Final = Load(rate=1, mean=0.4, ttl=86_400)
PAIR: Final = 2_500
"""Postbacks a second of the row that is one ingress and one worker."""

BYTES_BEFORE: Final = 858
"""Bytes of a finished record of release 0.2.0."""

NOTE: Final = f"""\
Two postbacks for each message, cores at most {LOAD.busy:.0%} busy at the peak, a mean of
{LOAD.mean:.0%} of the peak, records kept for a day, two processes of each kind at least, three
RabbitMQ nodes, no replica of Redis. A core costs {LOAD.core_price:g} € a month and a GiB
{LOAD.gib_price:g} €. These are assumptions; `mms-admin plan` takes your prices. Disks and network
are not in it. *Before* is `MMS_LINGER=0` in this run, and the {BYTES_BEFORE} bytes that a record
took in release 0.2.0. The first row has the CPU of {PAIR:,} postbacks a second; in the others each
process has so much load that its batches are full in any case.
"""


def section(figures: Mapping[str, Spread]) -> Section:
    """The table.

    Raises:
        KeyError: a figure was not measured.
    """
    size = record_bytes(figures)
    full = full_load(figures, size)
    rows = []
    for messages in MESSAGES:
        load = msgspec.structs.replace(LOAD, rate=messages * LOAD.per_message)
        few = load.rate <= PAIR
        before = _moderate(figures, waiting.NEVER) if few else full
        after = _moderate(figures, waiting.DEFAULT) if few else full
        rows.append(_row(messages, load, before, msgspec.structs.replace(after, record_bytes=size)))
    columns = ["messages/s", "cores before", "after", "GiB before", "after"]
    columns += ["€ a month before", "after", "messages/s for a € before", "after"]
    return Section("What a load needs", NOTE, {}, [Table("Before and after", columns, rows)])


def _row(messages: int, load: Load, before: Costs, after: Costs) -> tuple[str, ...]:
    before = msgspec.structs.replace(before, record_bytes=BYTES_BEFORE)
    both = (before, after)
    prices = [capacity.price(load, each) for each in both]
    gib = [capacity.redis_bytes(load, each) / 2**30 for each in both]
    return (
        f"{messages:,}",
        *(f"{capacity.cores(load, each):,}" for each in both),
        *map(number, [*gib, *prices, *(messages / price for price in prices)]),
    )


def full_load(figures: Mapping[str, Spread], record_bytes: float) -> Costs:
    """The costs of a postback when the batches are full.

    Raises:
        KeyError: they were not measured.
    """
    run = f"end-to-end.{endtoend.OURS}.{endtoend.FULL}.cpu"
    return _costs(figures, run, record_bytes)


def record_bytes(figures: Mapping[str, Spread]) -> float:
    """Bytes of Redis for a finished record, with the most records.

    Raises:
        ValueError: they were not measured.
    """
    sizes = {
        int(name.split(".")[2]): spread.median
        for name, spread in figures.items()
        if name.startswith("growth.Records in Redis.") and name.endswith(".bytes a record")
    }
    return sizes[max(sizes)]


def _moderate(figures: Mapping[str, Spread], side: str) -> Costs:
    return _costs(figures, f"waiting.{PAIR}.{side}.cpu", 0)


def _costs(figures: Mapping[str, Spread], run: str, record_bytes: float) -> Costs:
    return msgspec.structs.replace(
        MEASURED,
        ingress=figures[f"{run}.ingest"].median,
        worker=figures[f"{run}.worker"].median,
        rabbitmq=figures[f"{run}.rabbitmq"].median,
        redis=figures[f"{run}.redis"].median,
        record_bytes=record_bytes,
    )
