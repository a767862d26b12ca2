"""Is it worth asking the broker? After one failure, not until a probe has succeeded."""

import time
from collections.abc import Callable
from typing import Final

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 5.0


class Breaker:
    """A circuit breaker: closed while publishes succeed, open from a failure to a success.

    While it is open nothing but a probe may go to the broker, one every pause; the pause doubles
    from `FIRST_PAUSE` to `LONGEST_PAUSE` seconds.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pause = FIRST_PAUSE
        self._next_probe = 0.0
        self._trying = False
        self.reason: str | None = None

    @property
    def closed(self) -> bool:
        return self.reason is None

    @property
    def probe_due(self) -> bool:
        return not self.closed and self._clock() >= self._next_probe

    def may_probe(self) -> bool:
        """Whether a probe is due; the caller that gets True makes it."""
        if not self.probe_due:
            return False
        self._next_probe = self._clock() + self._pause
        self._trying = True
        return True

    def half_open(self) -> None:
        """Let the next publish decide instead of a probe."""
        self.reason = None
        self._trying = True

    def failed(self, reason: str) -> None:
        """A publish or a probe was not confirmed."""
        if self._trying:  # what was under way when it all began does not make the pause longer
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
            self._trying = False
        self.reason = reason
        self._next_probe = self._clock() + self._pause

    def succeeded(self) -> None:
        """A publish or a probe was confirmed."""
        self.reason = None
        self._pause = FIRST_PAUSE
        self._trying = False
