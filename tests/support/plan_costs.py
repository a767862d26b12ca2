"""The costs that `mms-admin plan` counts with: the benchmark's figures, rounded up.

They are those of the run at 75 % of the sustained rate, because a site needs a reserve.
`tests.support.tables` writes them into the package.
"""

import math
from typing import Final

import msgspec

from tests.bench import endtoend, needs
from tests.bench.measure import Spread
from tests.support.documents import ROOT
from workers.admin.plan.capacity import Costs

RESULTS: Final = ROOT / "tests" / "bench" / "results.json"
FILE: Final = ROOT / "workers" / "admin" / "plan" / "measured.json"

EVENT_BYTES: Final = 850
"""An event with all usual fields, and its properties."""

ENVELOPE_BYTES: Final = 40
"""Time, source, content type and lengths of a postback in a batch."""

PLANNED: Final = "75% of sustained"
SMALL_BATCHES: Final = f"{endtoend.FIXED:,}/s"
"""Runs of the benchmark."""


class _Results(msgspec.Struct):
    figures: dict[str, Spread]


def costs(run: str = PLANNED) -> Costs:
    """The costs of a postback in a run, from a file that the benchmark wrote."""
    figures = msgspec.json.decode(RESULTS.read_bytes(), type=_Results).figures

    def cpu(process: str) -> int:
        median = figures[f"end-to-end.{endtoend.OURS}.{run}.cpu.{process}"].median
        return _rounded_up(median, 5)

    return Costs(
        ingress=cpu("ingest"),
        worker=cpu("worker"),
        rabbitmq=cpu("rabbitmq"),
        redis=cpu("redis"),
        record_bytes=_rounded_up(needs.record_bytes(figures), 10),
        event_bytes=EVENT_BYTES,
        envelope_bytes=ENVELOPE_BYTES,
    )


def _rounded_up(value: float, step: int) -> int:
    return math.ceil(value / step) * step


def write() -> None:
    """Write the costs into the package."""
    FILE.write_bytes(msgspec.json.format(msgspec.json.encode(costs()), indent=1) + b"\n")
