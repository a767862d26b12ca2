"""A record's timeline: its postbacks in the order of arrival, and what each one changed.

A record does not depend on the order of arrival. Only this file uses it, to show the history.
"""

import msgspec

from shared.postback.codes import Outcome, Track
from shared.postback.record import Entry, Record


class Step(msgspec.Struct, frozen=True):
    """One postback, and its effect on its track.

    Attributes:
        before: the track's outcome until then; None when this postback is its first.
        decided: whether it outranked all earlier arrivals of its track.
    """

    entry: Entry
    before: Outcome | None
    decided: bool

    @property
    def change(self) -> str:
        """The change, for people."""
        track, outcome = self.entry.track, self.entry.postback.outcome
        if self.before is None:
            return f"{track}: → {outcome}"
        if not self.decided:
            return "no change (late)"
        if self.before is outcome:
            return f"{track}: {outcome}, again"
        return f"{track}: {self.before} → {outcome}"


def timeline(record: Record) -> list[Step]:
    """The record's postbacks by time of first arrival."""
    tops: dict[Track, Entry] = {}
    steps: list[Step] = []
    for entry in sorted(record.entries, key=lambda entry: (entry.received_at, entry.rank)):
        top = tops.get(entry.track)
        decided = top is None or entry.rank > top.rank
        steps.append(Step(entry, top.postback.outcome if top else None, decided))
        if decided:
            tops[entry.track] = entry
    return steps
