"""A frequent problem is logged at most once each interval for each reason."""

import logging

import pytest

from shared.rate_limited_log import RateLimitedLog


def test_a_reason_is_logged_once_each_interval(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 0.0
    limited = RateLimitedLog(logging.getLogger("frequent"), clock=lambda: now)
    for _ in range(5):
        limited.warning("full", "refused: %s", "full")
    limited.warning("late", "refused: %s", "late")
    now = 59.9
    limited.warning("full", "refused: %s", "full")
    now = 60.0
    limited.warning("full", "refused: %s", "full")
    limited.warning("late", "refused: %s", "late")
    assert caplog.messages == [
        "refused: full",
        "refused: late",
        "refused: full (5 more like this before)",
        "refused: late",
    ]
