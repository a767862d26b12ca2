"""The breaker: open after one failed publish, closed after one successful probe."""

import pytest

from ingest.breaker import FIRST_PAUSE, LONGEST_PAUSE, Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock)


def test_it_is_closed_at_first_and_no_probe_is_due(breaker: Breaker) -> None:
    assert breaker.closed
    assert breaker.reason is None
    assert not breaker.may_probe()


def test_one_failure_opens_it_and_one_success_closes_it(breaker: Breaker) -> None:
    breaker.succeeded()
    breaker.failed("gone")
    assert (breaker.closed, breaker.reason) == (False, "gone")
    breaker.succeeded()
    assert (breaker.closed, breaker.reason) == (True, None)


def test_one_probe_is_due_after_the_pause(breaker: Breaker, clock: Clock) -> None:
    breaker.failed("gone")
    assert not breaker.may_probe()
    clock.now += FIRST_PAUSE - 0.01
    assert not breaker.may_probe()
    clock.now += 0.01
    assert [breaker.may_probe() for _ in range(3)] == [True, False, False]


def test_a_probe_that_was_not_made_is_due_again(breaker: Breaker, clock: Clock) -> None:
    breaker.failed("gone")
    clock.now += LONGEST_PAUSE
    assert breaker.may_probe()
    clock.now += LONGEST_PAUSE
    assert breaker.may_probe()


def pause(breaker: Breaker, clock: Clock) -> float:
    """Seconds until a probe is due, rounded up to an eighth."""
    start = clock.now
    while not breaker.may_probe():
        clock.now += 0.125
    return clock.now - start


def test_the_pause_doubles_to_its_limit_and_is_short_again_after_a_success(
    breaker: Breaker, clock: Clock
) -> None:
    pauses = []
    for _ in range(6):
        breaker.failed("gone")
        pauses.append(pause(breaker, clock))
    assert pauses == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    breaker.succeeded()
    breaker.failed("gone again")
    assert pause(breaker, clock) == FIRST_PAUSE


def test_half_open_lets_the_next_publish_decide(breaker: Breaker, clock: Clock) -> None:
    breaker.failed("gone")
    breaker.half_open()
    assert (breaker.closed, breaker.reason) == (True, None)
    breaker.failed("still gone")
    assert (breaker.closed, breaker.reason) == (False, "still gone")
    assert pause(breaker, clock) == 2 * FIRST_PAUSE
