"""The law of merging as a small model in Python; `merge.lua` must do the same.

A record is a set of postbacks that only grows, with at most `keep` postbacks. Over that number the
lowest rank is dropped, but never a postback that decides its track, and the record says that
postbacks were dropped. (A new postback that is dropped at once, when others were dropped before,
counts as a duplicate: the record does not remember which postbacks it dropped.)
"""

from collections.abc import Sequence

from shared.postback.codes import Track
from shared.postback.envelope import Arrival
from shared.postback.postback import Key, NormalisedPostback, Postback, Rank
from shared.postback.record import Entry, Record
from workers.verdicts import Merged, Received, Verdict

DELIVERED = 4
"""The phase of a delivery."""


def received(
    normalised: NormalisedPostback, received_at: int = 1, *, redelivered: bool = False
) -> Received:
    """A postback to merge.

    Args:
        received_at: its time of arrival, microseconds since the Unix epoch.
    """
    return Received(Arrival(received_at, "default", "", b""), normalised, redelivered)


class Model:
    """One record."""

    def __init__(self, key: Key, keep: int = 64) -> None:
        self._key = key
        self._keep = keep
        self._held: dict[tuple[Track, Rank], tuple[int, Postback]] = {}
        self._dropped = False

    def merge(self, batch: Sequence[Received]) -> Merged:
        """Add postbacks.

        Returns:
            A verdict on each postback, and the record if an event may be due: a terminal postback
            decides its track, or is below a delivery, which may be a mistake of release 0.1.0; and
            it is no duplicate, or was redelivered.
        """
        verdicts = [self._add(each) for each in batch]
        due = any(
            each.normalised.rank.terminal
            and (each.redelivered or verdict is not Verdict.DUPLICATE)
            and (self._decides(each) or self._highest(each.normalised.track).phase == DELIVERED)
            for verdict, each in zip(verdicts, batch, strict=True)
        )
        return Merged(batch, verdicts, self.record() if due else None)

    def record(self) -> Record:
        """The record now."""
        entries = [
            Entry(track=track, rank=rank, received_at=received_at, postback=postback)
            for (track, rank), (received_at, postback) in self._held.items()
        ]
        return Record(
            self._key, tuple(sorted(entries, key=lambda entry: str(entry.rank))), self._dropped
        )

    def _add(self, received: Received) -> Verdict:
        normalised, received_at = received.normalised, received.arrival.received_at
        name = (normalised.track, normalised.rank)
        if name in self._held:
            earliest, postback = self._held[name]
            self._held[name] = (min(earliest, received_at), postback)
            return Verdict.SAME_ARRIVAL if received_at == earliest else Verdict.DUPLICATE
        self._held[name] = (received_at, normalised.postback)
        first = len(self._held) > self._keep and self._drop_lowest()
        return Verdict.NEW if name in self._held or first else Verdict.DUPLICATE

    def _drop_lowest(self) -> bool:
        """Drop one postback; whether it is the first that is dropped."""
        others = [(str(rank), track) for track, rank in self._held if rank != self._highest(track)]
        lowest, track = min(others)
        del self._held[track, Rank.parse(lowest)]
        first, self._dropped = not self._dropped, True
        return first

    def _decides(self, received: Received) -> bool:
        return self._highest(received.normalised.track) == received.normalised.rank

    def _highest(self, track: Track) -> Rank:
        return max((rank for its, rank in self._held if its is track), key=str)
