"""The dead letters of postbacks that fail with an unexpected error, or that Redis refuses."""

import logging
import traceback
from pathlib import Path
from typing import Final

from shared.postback.dead_letter import DeadLetter, Reason, dead_letter_of
from shared.postback.envelope import Arrival
from shared.rate_limited_log import RateLimitedLog
from workers import metrics
from workers.verdicts import Unmergeable

_limited_log: Final = RateLimitedLog(logging.getLogger(__name__))


def failed_postback(arrival: Arrival, batch_id: str, error: Exception) -> DeadLetter:
    """The dead letter of a postback whose processing raised an unexpected error: a defect of ours.

    Args:
        batch_id: the id of the batch it was in.
    """
    metrics.FAILED.inc()
    kind = type(error).__name__
    # The error's text and its traceback could hold a part of the postback.
    place = traceback.extract_tb(error.__traceback__)[-1:]
    where = ", ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in place)
    _limited_log.warning(kind, "a postback failed with %s at %s; it is a dead letter", kind, where)
    return dead_letter_of(
        arrival, Reason.UNDELIVERABLE, f"processing it failed: {kind} at {where}", batch_id
    )


def refused_postbacks(unmergeable: Unmergeable) -> list[DeadLetter]:
    """The dead letters of the postbacks that Redis refuses."""
    return [
        dead_letter_of(received.arrival, Reason.UNDELIVERABLE, unmergeable.error, received.batch_id)
        for received in unmergeable.received
    ]
