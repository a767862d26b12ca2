"""What was sent and which responses came, for each postback and in total."""

import math
import time
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Final

SENT: Final = 1
ANSWERED: Final = 2
GIVEN_UP: Final = 4

RESPONSE_LIMIT: Final = 5.0
"""Seconds within which the ingress must answer every request, whatever is broken."""


class Ledger:
    """The sender fills it while it sends; it can be read at any time.

    Attributes:
        flags: for each postback, by its number: `SENT` (at least one attempt was made), `ANSWERED`
            (at least one attempt was answered 200), `GIVEN_UP` (one of its POSTs failed as often
            as the provider tries).
        attempts: POSTs by their result: a status, `timeout` or `no connection`.
        times: seconds from each POST to its response, for those that had one.
        late: POSTs that ended later than `RESPONSE_LIMIT`, with or without a response.
        answered: distinct postbacks answered 200.
        duplicates: postbacks POSTed again although the first POST had not failed.
        other_origins: for each postback of another origin that was POSTed, by its id, whether it
            was answered 200.
        resent: POSTs that repeat a failed one.
        waiting: failed POSTs that wait for their resend.
        began: when sending began, seconds since the Unix epoch.
        ended: when sending ended; None before that.
    """

    def __init__(self, postbacks: int) -> None:
        self.flags = bytearray(postbacks)
        self.attempts: Counter[str] = Counter()
        self.times: array[float] = array("d")
        self.late = 0
        self.answered = 0
        self.duplicates = 0
        self.other_origins: dict[str, bool] = {}
        self.resent = 0
        self.waiting = 0
        self.began = time.time()
        self.ended: float | None = None

    def enter(self, number: int, result: str, seconds: float) -> bool:
        """Enter the result of one attempt; return whether the postback counts as received."""
        self._count(result, seconds)
        received = result == "200"
        if received and not self.flags[number] & ANSWERED:
            self.answered += 1
        self.flags[number] |= SENT | ANSWERED if received else SENT
        return received

    def enter_other(self, name: str, result: str, seconds: float) -> None:
        """Enter the result of the attempt for one postback of another origin."""
        self._count(result, seconds)
        self.other_origins[name] = result == "200"

    def _count(self, result: str, seconds: float) -> None:
        self.attempts[result] += 1
        self.late += seconds > RESPONSE_LIMIT
        if result.isdigit():
            self.times.append(seconds)

    def give_up(self, number: int) -> None:
        """Enter that a POST of this postback failed for the last time."""
        self.flags[number] |= GIVEN_UP

    def was_sent(self, number: int) -> bool:
        return bool(self.flags[number] & SENT)

    def was_answered(self, number: int) -> bool:
        """Whether the ingress took responsibility for this postback with a 200."""
        return bool(self.flags[number] & ANSWERED)

    @property
    def sent(self) -> int:
        """Distinct postbacks with at least one attempt."""
        return len(self.flags) - self.flags.count(0)

    @property
    def given_up(self) -> int:
        """Distinct postbacks that were never answered 200 and will not be resent."""
        return self.flags.count(SENT | GIVEN_UP)

    @property
    def unanswered(self) -> int:
        """Distinct postbacks that were sent and never answered 200, given up or not."""
        return self.sent - self.answered

    @property
    def posts(self) -> int:
        return self.attempts.total()

    @property
    def seconds(self) -> float:
        """Seconds that sending took, or has taken so far."""
        return max(1e-9, (self.ended or time.time()) - self.began)

    def percentiles(self, *shares: float) -> list[float]:
        """Response times in seconds that these shares (0 to 1) of the responses did not exceed."""
        times = sorted(self.times)
        return [_nearest_rank(times, share) for share in shares]

    def summary(self) -> dict[str, object]:
        """The figures for JSON; times in milliseconds."""
        p50, p95, p99, longest = self.percentiles(0.5, 0.95, 0.99, 1.0)
        return {
            "postbacks": len(self.flags),
            "sent": self.sent,
            "answered_200": self.answered,
            "given_up": self.given_up,
            "still_waiting": self.waiting,
            "posts": self.posts,
            "attempts": dict(self.attempts.most_common()),
            "duplicates": self.duplicates,
            "other_origins": len(self.other_origins),
            "resent": self.resent,
            "late": self.late,
            "seconds": round(self.seconds, 3),
            "posts_per_second": round(self.posts / self.seconds, 1),
            "p50_ms": round(p50 * 1e3, 2),
            "p95_ms": round(p95 * 1e3, 2),
            "p99_ms": round(p99 * 1e3, 2),
            "longest_ms": round(longest * 1e3, 2),
        }


def _nearest_rank(ordered: Sequence[float], share: float) -> float:
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
