"""A record's timeline: its postbacks in the order in which they came, and what each one changed.

The record itself knows no order; this is the only place where the order of arrival is looked at,
and only to tell the story.
"""

import msgspec

from shared.postback.codes import Outcome, Track
from shared.postback.record import Entry, Record


class Step(msgspec.Struct, frozen=True):
    """One postback, and what it did to its track.

    Attributes:
        before: the track's outcome until then; None when this postback began it.
        decided: whether it outranked everything of its track that had come before.
    """

    entry: Entry
    before: Outcome | None
    decided: bool

    @property
    def change(self) -> str:
        """What it changed, for people."""
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
