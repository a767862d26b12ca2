"""The input and the result of `merge.lua`, and the rule for due events.

`merge.lua` returns a verdict on each postback. An event is due for a track when a terminal postback
of the merge decides the track, and the event may be unpublished:

* the verdict is `NEW`, or
* the verdict is `SAME_ARRIVAL`: a rebuild, or a batch that was published twice, merged the postback
  without an event. (A rebuild reads every arrival again, so for a rebuild this says nothing.) Or
* the postback was redelivered: an earlier worker may have merged it and died before it published.

The worker and `mms-admin rebuild` both use `due_events`. `merge.lua` returns the record wherever
this rule may need it. The postback that decides a track is read from the record, because a name in
Redis may be an older release's.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple

from shared.postback.codes import Track
from shared.postback.envelope import Arrival
from shared.postback.event import Event, event_of
from shared.postback.postback import NormalisedPostback
from shared.postback.record import Record

NOTIFY_NEVER: Final = "0"
NOTIFY_UNLESS_DUPLICATE: Final = "1"
NOTIFY_ALWAYS: Final = "2"


class Received(NamedTuple):
    """A postback to merge.

    Attributes:
        arrival: the request as it reached the ingress.
        redelivered: whether an earlier worker, or an earlier try, may have merged it already
            without publishing its event.
        batch_id: the id of its batch, see `envelope.batch_id`.
    """

    arrival: Arrival
    normalised: NormalisedPostback
    redelivered: bool
    batch_id: str = ""


class Verdict(Enum):
    """What a merge found out about one postback; the values are those of `merge.lua`."""

    NEW = "n"
    """The record did not have it."""

    SAME_ARRIVAL = "s"
    """The record has it, with the same time of arrival."""

    DUPLICATE = "d"
    """The record has it from another arrival."""


class Merged(NamedTuple):
    """The result of merging postbacks into one record.

    Attributes:
        verdicts: one for each postback of `received`.
        record: the record after the merge, if an event may be due; else None. Of a large record
            only the postbacks of highest rank, see `merge.lua`.
    """

    received: Sequence[Received]
    verdicts: Sequence[Verdict]
    record: Record | None

    def new(self) -> list[Received]:
        """The postbacks that the record did not have before."""
        pairs = zip(self.verdicts, self.received, strict=True)
        return [received for verdict, received in pairs if verdict is Verdict.NEW]


class Unmergeable(NamedTuple):
    """Postbacks of one record that Redis refuses now and would refuse again.

    Attributes:
        error: the reason, for people.
    """

    received: Sequence[Received]
    error: str


class DueEvent(NamedTuple):
    """An event to publish.

    Attributes:
        received: the last postback of the merge that the event is due for.
    """

    event: Event
    received: Received


def notify_digits(received: Sequence[Received]) -> str:
    """One digit for each postback: when `merge.lua` returns the record because of it."""
    digits = ""
    for _, normalised, redelivered, _ in received:
        if not normalised.rank.terminal:
            digits += NOTIFY_NEVER
        else:
            digits += NOTIFY_ALWAYS if redelivered else NOTIFY_UNLESS_DUPLICATE
    return digits


def decode_verdicts(verdicts: bytes) -> list[Verdict]:
    """The verdicts that `merge.lua` returned."""
    return [_VERDICTS[each] for each in verdicts]


def due_events(merged: Merged, *, replayed: bool = False) -> list[DueEvent]:
    """The events that are due after a merge, one for each track at most.

    Args:
        replayed: whether the postbacks were read from the archive again, not delivered.
    """
    if merged.record is None:
        return []
    highest = {entry.track: entry.rank for entry in merged.record.entries}  # lowest rank first
    due: dict[Track, Received] = {}
    for verdict, received in zip(merged.verdicts, merged.received, strict=True):
        normalised = received.normalised
        if not normalised.rank.terminal or normalised.rank != highest.get(normalised.track):
            continue
        if (
            verdict is Verdict.NEW
            or (verdict is Verdict.SAME_ARRIVAL and not replayed)
            or received.redelivered
        ):
            due[normalised.track] = received
    return [
        DueEvent(event_of(merged.record, track), due[track]) for track in _TRACKS if track in due
    ]


_VERDICTS: Final = {ord(verdict.value): verdict for verdict in Verdict}
_TRACKS: Final = tuple(Track)
