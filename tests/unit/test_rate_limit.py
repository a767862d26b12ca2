"""The token bucket: never more than a second's worth ahead of its rate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.access_control.rate_limit import Bucket


@given(
    st.floats(min_value=0.01, max_value=1000),
    st.lists(st.floats(min_value=0, max_value=10), min_size=1, max_size=200),
)
def test_what_is_let_through_is_bounded_by_the_time(rate: float, pauses: list[float]) -> None:
    now = 0.0
    bucket = Bucket(rate, clock=lambda: now)
    let_through = 0
    for pause in pauses:
        now += pause
        let_through += bucket.take() == 0
    assert let_through <= max(1.0, rate) + rate * now + 1e-6


@given(st.floats(min_value=0.01, max_value=1000))
def test_after_the_pause_that_it_asks_for_there_is_one(rate: float) -> None:
    now = 0.0
    bucket = Bucket(rate, clock=lambda: now)
    while not (wait := bucket.take()):
        pass
    now += wait * (1 + 1e-6)
    assert bucket.take() == 0


def test_a_second_s_worth_at_once() -> None:
    bucket = Bucket(3, clock=lambda: 0.0)
    assert [bucket.take() for _ in range(3)] == [0, 0, 0]
    assert bucket.take() == pytest.approx(1 / 3)
