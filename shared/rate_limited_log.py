"""Log lines about frequent problems: at most one each minute for each reason."""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable


class RateLimitedLog:
    """Logs a line about a frequent problem at most once each interval for each reason.

    The next line for the reason says how many lines were left out. Reasons must come from a short
    fixed list, never from what a client sends.

    Args:
        log: the logger to write to.
        interval: seconds between two lines for the same reason.
        clock: returns seconds, monotonic.
    """

    def __init__(
        self,
        log: logging.Logger,
        interval: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._interval = interval
        self._clock = clock
        self._next: dict[str, float] = {}
        self._left_out: Counter[str] = Counter()

    def warning(self, reason: str, message: str, *args: object) -> None:
        """Log `message % args`, unless a line for this reason was logged within the interval."""
        now = self._clock()
        if now < self._next.get(reason, -math.inf):
            self._left_out[reason] += 1
            return
        self._next[reason] = now + self._interval
        if left_out := self._left_out.pop(reason, 0):
            message, args = f"{message} (%d more like this before)", (*args, left_out)
        self._log.warning(message, *args)
