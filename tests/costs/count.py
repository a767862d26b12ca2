"""Count what one postback costs in each step, and print it as JSON; `stored` runs this.

.venv/bin/python -m tests.costs.count bytecodes
"""

import asyncio
import gc
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from tests.costs import bytecodes, callgrind
from tests.costs.pure import Step, pure_steps
from tests.costs.stations import CountingLoop, station_steps

BYTECODES: Final = "bytecodes"
INSTRUCTIONS: Final = "instructions"

WARM_UP: Final = 30
"""Calls before a step is counted: caches are full, and Python has specialised its bytecode."""

CALLS: Final = 8
"""Calls for one count. Twice as many are counted too: the difference has none of the cost of
counting."""


def main() -> None:
    """Count all steps; of instructions, argument 2 is callgrind's directory."""
    kind, *directory = sys.argv[1:]
    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        steps = pure_steps() | station_steps(runner.get_loop())
        gc.collect()
        gc.disable()
        for step in steps.values():
            _call(step, WARM_UP)
        if kind == INSTRUCTIONS:
            count = callgrind.Counter(Path(*directory)).count
        else:
            count = bytecodes.count
        counts = {name: _for_one_postback(step, count) for name, step in steps.items()}
    json.dump(counts, sys.stdout)


def _for_one_postback(step: Step, count: Callable[[Callable[[], object]], int]) -> float:
    some, twice = (count(partial(_call, step, calls)) for calls in (CALLS, 2 * CALLS))
    return (twice - some) / CALLS / step.postbacks


def _call(step: Step, times: int) -> None:
    call = step.call
    for _ in range(times):
        call()


if __name__ == "__main__":
    main()
