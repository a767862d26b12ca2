"""How many arrivals a small batch waits for.

Each batch costs RabbitMQ and the worker much more than each postback in it. So a batch waits to
fill, but only while recent arrivals say that it will:

* At the rate of the last moments at least `USEFUL` arrivals come within the limit. An idle ingress,
  or one with a few postbacks a second, never waits.
* Lately at least `USEFUL` requests had no response at the same time. The batch waits for as many. A
  client sends its next request after the response to the last one, so a batch cannot hold more
  requests than there are busy connections, and does not wait when it holds them all.
* Arrivals continue. A pause of `PAUSE` average intervals ends the wait.
"""

import math
from typing import Final

USEFUL: Final = 4
"""Arrivals for which a batch waits at least."""

PAUSE: Final = 4.0
"""Average intervals between two arrivals that end a wait when nothing arrives in them. Of random
intervals one in 55 is longer."""

MEMORY: Final = 0.05
"""Seconds after which a batch counts for a third of its arrivals in the rate."""


class Linger:
    """Learns from the last batches whether the next one should wait.

    Args:
        limit: seconds that an arrival waits at most for others; 0: no batch waits.

    All other times are in seconds on one clock.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._rate = 0.0  # arrivals a second at `_taken_at`
        self._taken_at = 0.0
        self._unanswered = 0

    def taken(self, arrivals: int, now: float) -> None:
        """A commit of so many arrivals starts."""
        self._rate = self._rate_at(now) + arrivals / MEMORY
        self._taken_at = now

    def committed(self, unanswered: int) -> None:
        """A commit ends; so many requests have no response yet, those of its batch included."""
        self._unanswered = unanswered

    def wanted(self, now: float) -> int:
        """The number of arrivals that a batch should wait for; 0: it should not wait."""
        if self._unanswered < USEFUL or self._rate_at(now) * self.limit < USEFUL:
            return 0
        return self._unanswered

    def pause(self, now: float) -> float:
        """The seconds without an arrival after which a batch should wait no longer."""
        rate = self._rate_at(now)
        return min(self.limit, PAUSE / rate) if rate else self.limit

    def _rate_at(self, now: float) -> float:
        return self._rate * math.exp((self._taken_at - now) / MEMORY)
