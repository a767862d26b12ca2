"""The token bucket: at most one second's worth of tokens ahead of its rate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.access_control.rate_limit import TokenBucket


@given(
    st.floats(min_value=0.01, max_value=1000),
    st.lists(st.floats(min_value=0, max_value=10), min_size=1, max_size=200),
)
def test_the_number_of_tokens_is_limited_by_the_time(rate: float, pauses: list[float]) -> None:
    now = 0.0
    bucket = TokenBucket(rate, clock=lambda: now)
    taken = 0
    for pause in pauses:
        now += pause
        taken += bucket.take() == 0
    assert taken <= max(1.0, rate) + rate * now + 1e-6


@given(st.floats(min_value=0.01, max_value=1000))
def test_a_token_is_available_after_the_pause_that_take_returns(rate: float) -> None:
    now = 0.0
    bucket = TokenBucket(rate, clock=lambda: now)
    while not (wait := bucket.take()):
        pass
    now += wait * (1 + 1e-6)
    assert bucket.take() == 0


def test_one_second_s_worth_is_available_at_once() -> None:
    bucket = TokenBucket(3, clock=lambda: 0.0)
    assert [bucket.take() for _ in range(3)] == [0, 0, 0]
    assert bucket.take() == pytest.approx(1 / 3)
