"""How many a second: a token bucket that holds one second's worth."""

import time
from collections.abc import Callable


class Bucket:
    """Lets `rate` a second through, and as many at once after a pause.

    Args:
        rate: a second; more than 0.
        clock: seconds, monotonic.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._most = max(1.0, rate)
        self._clock = clock
        self._left = self._most
        self._filled = clock()

    def take(self) -> float:
        """Take one; 0 if there was one, else the seconds until there will be."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._filled) * self._rate)
        self._filled = now
        if self._left < 1.0:
            return (1.0 - self._left) / self._rate
        self._left -= 1.0
        return 0.0
