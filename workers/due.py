"""Which events are due after a merge: the one rule, for the worker and for a rebuild.

An event is due for a track that a terminal postback just merged decides, if nobody is sure that
the event was published:

* the postback is new, or
* it was known, but its batch was delivered before (or its merge was tried before) to somebody who
  may have written the state and not published the event, or
* it was known by this very arrival: a rebuild, or a batch that was published twice, brought it in
  without an event. A rebuild itself reads every arrival a second time, so for it this says nothing.

`merge.lua` answers with the whole record wherever this rule may need it.
"""

from typing import Final

from shared.codes import Track
from shared.event import Event, event_of
from workers.store import Merged, Received

_TRACKS: Final = tuple(Track)


def due_events(merged: Merged, *, replayed: bool = False) -> list[tuple[Event, Received]]:
    """One event for each track that is due, with the last postback that it is due for.

    Args:
        replayed: the postbacks were read from the archive again, not delivered.
    """
    if merged.record is None:
        return []
    tracks: dict[Track, Received] = {}
    for result, received in zip(merged.results, merged.received, strict=True):
        if not received.filing.rank.terminal:
            continue
        new = result == "N" or (result == "S" and not replayed)
        if new or (result in "SD" and received.redelivered):
            tracks[received.filing.track] = received
    return [(event_of(merged.record, track), tracks[track]) for track in _TRACKS if track in tracks]
