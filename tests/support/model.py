"""The law of merging as a small model in Python; what `merge.lua` does must equal it.

A record is a set of postbacks that only grows, with at most `keep` in it. Over that the lowest
rank goes, but never one that decides its track, and the record says that there were more. (What
goes at once, when others went before, counts as a duplicate; nobody remembers which ones went.)
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from shared.postback.codes import Track
from shared.postback.postback import Key, NormalisedPostback, Postback, Rank
from shared.postback.record import Entry, Record

NOTIFY_NEVER: Final = 0
NOTIFY_NEW: Final = 1
NOTIFY_ALWAYS: Final = 2

DELIVERED: Final = 4
"""The phase of a delivery."""


class Merging(NamedTuple):
    """A postback that is to be merged.

    Attributes:
        received_at: microseconds since the Unix epoch; the earliest stays.
        wish: when somebody is to be told, provided that it decides its track: never, when it is
            new or known by the same arrival, or also when it is a duplicate (it was redelivered).
    """

    normalised: NormalisedPostback
    received_at: int
    notify: int = NOTIFY_NEW


class Model:
    """One record."""

    def __init__(self, key: Key, keep: int = 64) -> None:
        self._key = key
        self._keep = keep
        self._held: dict[tuple[Track, Rank], tuple[int, Postback]] = {}
        self._dropped = False

    def merge(self, batch: Sequence[Merging]) -> tuple[str, Record | None]:
        """Add postbacks.

        Returns:
            One letter for each: n new, s the same arrival again, d duplicate; in capitals when it
            decides its track now. And the record when somebody is to be told of it, or may have to
            be: what counts as delivered may be an older release's mistake.
        """
        added = [self._add(each) for each in batch]
        letters = "".join(  # what decides shows when all are in
            letter.upper() if self._decides(each) else letter
            for letter, each in zip(added, batch, strict=True)
        )
        told = any(
            (letter.isupper() or self._highest(each.normalised.track).phase == DELIVERED)
            and (each.notify == NOTIFY_ALWAYS or (letter in "NSns" and each.notify == NOTIFY_NEW))
            for letter, each in zip(letters, batch, strict=True)
        )
        return letters, self.record() if told else None

    def record(self) -> Record:
        """What is known now."""
        entries = [
            Entry(track=track, rank=rank, received_at=received_at, postback=postback)
            for (track, rank), (received_at, postback) in self._held.items()
        ]
        return Record(
            self._key, tuple(sorted(entries, key=lambda entry: str(entry.rank))), self._dropped
        )

    def _add(self, merging: Merging) -> str:
        normalised, received_at, _ = merging
        name = (normalised.track, normalised.rank)
        if name in self._held:
            earliest, postback = self._held[name]
            self._held[name] = (min(earliest, received_at), postback)
            return "s" if received_at == earliest else "d"
        self._held[name] = (received_at, normalised.postback)
        first = len(self._held) > self._keep and self._drop_lowest()
        return "n" if name in self._held or first else "d"

    def _drop_lowest(self) -> bool:
        """Drop one; whether it is the first."""
        others = [(str(rank), track) for track, rank in self._held if rank != self._highest(track)]
        lowest, track = min(others)
        del self._held[track, Rank.parse(lowest)]
        first, self._dropped = not self._dropped, True
        return first

    def _decides(self, merging: Merging) -> bool:
        return self._highest(merging.normalised.track) == merging.normalised.rank

    def _highest(self, track: Track) -> Rank:
        return max((rank for its, rank in self._held if its is track), key=str)
