"""The rate limit of a source: a token bucket that holds one second's worth of tokens."""

import time
from collections.abc import Callable


class TokenBucket:
    """Allows `rate` postbacks a second, and as many at once after a pause.

    Args:
        rate: postbacks a second; more than 0.
        clock: seconds, monotonic.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._capacity = max(1.0, rate)
        self._clock = clock
        self._tokens = self._capacity
        self._filled_at = clock()

    def take(self) -> float:
        """Take one token.

        Returns:
            0 when a token was taken, else the seconds until one is available.
        """
        now = self._clock()
        refilled = self._tokens + (now - self._filled_at) * self._rate
        self._tokens = min(self._capacity, refilled)
        self._filled_at = now
        if self._tokens < 1.0:
            return (1.0 - self._tokens) / self._rate
        self._tokens -= 1.0
        return 0.0
