"""The circuit breaker: after a failed publish no batch goes to RabbitMQ until a probe succeeds."""

import time
from collections.abc import Callable
from typing import Final

FIRST_PAUSE: Final = 0.5
"""Seconds from the first failure to the first probe."""

LONGEST_PAUSE: Final = 5.0
"""Seconds between two probes, at most."""


class Breaker:
    """Closed while publishes succeed, open from a failure to the next success.

    While it is open, only probes may go to the broker, one in each pause. The pause doubles from
    `FIRST_PAUSE` to `LONGEST_PAUSE`.

    Args:
        clock: seconds, monotonic.

    Attributes:
        reason: why it is open; None while it is closed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pause = FIRST_PAUSE
        self._next_probe = 0.0
        self._probing = False
        self.reason: str | None = None

    @property
    def closed(self) -> bool:
        return self.reason is None

    @property
    def probe_due(self) -> bool:
        return not self.closed and self._clock() >= self._next_probe

    def may_probe(self) -> bool:
        """Whether a probe is due; a caller that gets True must make it."""
        if not self.probe_due:
            return False
        self._next_probe = self._clock() + self._pause
        self._probing = True
        return True

    def half_open(self) -> None:
        """Close it for one publish, which decides like a probe."""
        self.reason = None
        self._probing = True

    def failed(self, reason: str) -> None:
        """A publish or a probe was not confirmed."""
        if self._probing:  # publishes that began before the breaker opened do not double the pause
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
            self._probing = False
        self.reason = reason
        self._next_probe = self._clock() + self._pause

    def succeeded(self) -> None:
        """A publish or a probe was confirmed."""
        self.reason = None
        self._pause = FIRST_PAUSE
        self._probing = False
