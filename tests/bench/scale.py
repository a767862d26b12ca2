"""The sizes of a run: `--quick` to see that it works, the usual run, `--full`."""

from typing import NamedTuple


class Scale(NamedTuple):
    """Sizes and times of a run; times in whole seconds.

    Attributes:
        rounds: rounds of each comparison.
        warm_up: load on each server before the first round.
        settle: load before each measurement.
        seconds: duration of each measurement.
        backlog: postbacks in the queue when a worker is measured.
        paced: seconds of load at a fixed rate.
        waited: seconds of load at a fixed rate, with and without waiting for fuller batches.
        records: records in Redis when merging is measured.
        backlogs: postbacks in the queue when draining is measured.
        growth_rounds: rounds of each size in the section "Growth".
        searched: seconds of load at a rate that may be too high.
        soak: seconds of load while memory is measured.
    """

    rounds: int
    warm_up: int
    settle: int
    seconds: int
    backlog: int
    paced: int
    waited: int
    records: tuple[int, ...]
    backlogs: tuple[int, ...]
    growth_rounds: int
    searched: int
    soak: int


QUICK = Scale(
    rounds=1,
    warm_up=1,
    settle=1,
    seconds=2,
    backlog=6_000,
    paced=4,
    waited=4,
    records=(1_000, 10_000),
    backlogs=(1_000, 10_000),
    growth_rounds=1,
    searched=4,
    soak=8,
)
USUAL = Scale(
    rounds=3,
    warm_up=1,
    settle=1,
    seconds=4,
    backlog=20_000,
    paced=8,
    waited=5,
    records=(10_000, 100_000),
    backlogs=(1_000, 10_000, 100_000),
    growth_rounds=5,
    searched=5,
    soak=30,
)
FULL = Scale(
    rounds=5,
    warm_up=3,
    settle=2,
    seconds=8,
    backlog=40_000,
    paced=30,
    waited=20,
    records=(10_000, 100_000, 1_000_000),
    backlogs=(1_000, 10_000, 100_000),
    growth_rounds=7,
    searched=10,
    soak=180,
)
