"""Which events are due after a merge: the one rule, for the worker and for a rebuild.

An event is due for a track that a terminal postback just merged decides, if nobody is sure that
the event was published:

* the postback is new, or
* it was known, but its batch was delivered before (or its merge was tried before) to somebody who
  may have written the state and not published the event, or
* it was known by this very arrival: a rebuild, or a batch that was published twice, brought it in
  without an event. A rebuild itself reads every arrival a second time, so for it this says nothing.

`merge.lua` answers with the record wherever this rule may need it; what decides a track is read
from the record, because a name in Redis may be an older release's.
"""

from typing import Final

from shared.postback.codes import Track
from shared.postback.event import Event, event_of
from workers.store import Merged, Received

_TRACKS: Final = tuple(Track)


def due_events(merged: Merged, *, replayed: bool = False) -> list[tuple[Event, Received]]:
    """One event for each track that is due, with the last postback that it is due for.

    Args:
        replayed: the postbacks were read from the archive again, not delivered.
    """
    if merged.record is None:
        return []
    highest = {entry.track: entry.rank for entry in merged.record.entries}  # the last one stands
    tracks: dict[Track, Received] = {}
    for result, received in zip(merged.results.lower(), merged.received, strict=True):
        normalised = received.normalised
        if not normalised.rank.terminal or normalised.rank != highest.get(normalised.track):
            continue
        if result == "n" or (result == "s" and not replayed) or received.redelivered:
            tracks[normalised.track] = received
    return [(event_of(merged.record, track), tracks[track]) for track in _TRACKS if track in tracks]
