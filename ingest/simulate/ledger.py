"""What was sent and what was answered, by postback and in all."""

import math
import time
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Final

SENT: Final = 1
ANSWERED: Final = 2
GIVEN_UP: Final = 4

ANSWER_LAW: Final = 5.0
"""Seconds within which every request has to be answered, whatever is broken."""


class Ledger:
    """Kept by the sender while it sends; can be read at any time.

    Attributes:
        fates: for each postback, by its number, which of `SENT` (tried at least once), `ANSWERED`
            (at least one attempt was answered 200) and `GIVEN_UP` (one of its POSTs was tried as
            often as the provider tries) are true of it.
        attempts: POSTs by what came of them: a status, `timeout` or `no connection`.
        times: seconds from each POST to its answer, for those that were answered.
        late: POSTs that had waited longer than `ANSWER_LAW` when their answer came, or none.
        answered: distinct postbacks answered 200.
        duplicates: postbacks POSTed again though nothing was wrong.
        other_origins: for each postback of another origin that was POSTed, by its id, whether it
            was answered 200.
        resent: POSTs that repeat one that had failed.
        waiting: POSTs that failed and wait to be sent again.
        began: when sending began, seconds since the Unix epoch.
        ended: when it ended; None while it goes on.
    """

    def __init__(self, postbacks: int) -> None:
        self.fates = bytearray(postbacks)
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
        """Note one attempt for one postback; returns whether it counts as received."""
        self._note(result, seconds)
        received = result == "200"
        if received and not self.fates[number] & ANSWERED:
            self.answered += 1
        self.fates[number] |= SENT | ANSWERED if received else SENT
        return received

    def enter_other(self, name: str, result: str, seconds: float) -> None:
        """Note the attempt for one postback of another origin."""
        self._note(result, seconds)
        self.other_origins[name] = result == "200"

    def _note(self, result: str, seconds: float) -> None:
        self.attempts[result] += 1
        self.late += seconds > ANSWER_LAW
        if result.isdigit():
            self.times.append(seconds)

    def give_up(self, number: int) -> None:
        """Note that a POST of this postback failed for the last time."""
        self.fates[number] |= GIVEN_UP

    def was_sent(self, number: int) -> bool:
        return bool(self.fates[number] & SENT)

    def was_answered(self, number: int) -> bool:
        """Whether the other side took responsibility for this postback, by a 200."""
        return bool(self.fates[number] & ANSWERED)

    @property
    def sent(self) -> int:
        """Distinct postbacks tried at least once."""
        return len(self.fates) - self.fates.count(0)

    @property
    def given_up(self) -> int:
        """Distinct postbacks that were never answered 200, and will not be tried again."""
        return self.fates.count(SENT | GIVEN_UP)

    @property
    def unanswered(self) -> int:
        """Distinct postbacks that were tried and never answered 200, given up or not."""
        return self.sent - self.answered

    @property
    def posts(self) -> int:
        return self.attempts.total()

    @property
    def seconds(self) -> float:
        """How long sending took, or has taken until now."""
        return max(1e-9, (self.ended or time.time()) - self.began)

    def percentiles(self, *shares: float) -> list[float]:
        """Answer times in seconds that these shares (0 to 1) of the answers did not exceed."""
        times = sorted(self.times)
        return [_nearest_rank(times, share) for share in shares]

    def summary(self) -> dict[str, object]:
        """The figures as JSON can hold them; times in milliseconds."""
        p50, p95, p99, longest = self.percentiles(0.5, 0.95, 0.99, 1.0)
        return {
            "postbacks": len(self.fates),
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
