"""No step of a postback's way costs more than is stored.

The costs are counted, so they are the same on a busy machine.
"""

from functools import partial

import pytest

from tests.costs import bytecodes, callgrind
from tests.costs.count import BYTECODES, INSTRUCTIONS
from tests.costs.stored import COMMAND, KINDS, counted, differences, stored

ADVICE = f"""\
The cost of one postback has changed. If it costs more and should not, find the cause in your last
changes. If the change is worth it, or if a step costs less now, store the new costs and say why in
the commit message:

    {COMMAND}
"""


@pytest.mark.timeout(300)  # callgrind takes some seconds of CPU, and a busy machine has little
@pytest.mark.parametrize("kind", KINDS)
def test_no_step_costs_more_than_is_stored(kind: str) -> None:
    before = stored(kind)
    if before is None:
        pytest.skip(f"no {kind} are stored for Python {KINDS[kind]}; to store them: {COMMAND}")
    if kind == INSTRUCTIONS and (reason := callgrind.unavailable()):
        pytest.skip(reason)
    found = differences(kind, before, counted(kind))
    if found:
        pytest.fail("\n".join([*found, "", ADVICE]), pytrace=False)


def test_a_step_that_costs_a_tenth_more_is_reported_by_name() -> None:
    before = {"parse": 1_000.0, "merge": 500.0, "gone": 1.0}
    now = {"parse": 1_100.0, "merge": 524.0, "new": 7.0}
    assert differences(BYTECODES, before, now) == [
        "parse: 1,000.0 bytecodes are stored, now it takes 1,100.0 (+10.0%)",
        "new: nothing is stored",
        "gone: there is no such step any more",
    ]


def test_a_step_that_costs_less_is_reported_too_so_that_the_gain_is_stored() -> None:
    assert differences(BYTECODES, {"parse": 100.0}, {"parse": 94.0}) == [
        "parse: 100.0 bytecodes are stored, now it takes 94.0 (-6.0%)"
    ]


def test_a_few_instructions_more_are_no_difference() -> None:
    assert differences(INSTRUCTIONS, {"encode": 700.0}, {"encode": 1_100.0}) == []
    assert differences(INSTRUCTIONS, {"encode": 700.0}, {"encode": 1_300.0}) != []


def test_bytecodes_are_counted_in_every_function_that_is_called() -> None:
    def inner(times: int) -> None:
        for _ in range(times):
            pass

    def outer(times: int) -> None:
        inner(times)
        inner(times)

    ten, twenty, forty = (bytecodes.count(partial(outer, times)) for times in (10, 20, 40))
    assert forty - twenty == 2 * (twenty - ten) > 0
