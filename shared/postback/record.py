"""A record: the set of postbacks received for one key, and what is known because of them.

The highest rank of a track decides its outcome, so nothing else has to be kept consistent.
Everything here is a function of that set, and independent of the order of arrival. How Redis holds
a record: see `stored`.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec.structs import astuple

from shared.postback.codes import Outcome, Track
from shared.postback.postback import Key, Postback, Rank
from shared.postback.timestamps import NO_TIME, digits, rfc3339_of

MAX_POSTBACKS_KEPT: Final = 64
"""Postbacks kept for one key. Over this number those of lowest rank are dropped."""


def reference_key(source: str, client_reference: str) -> str:
    """The Redis key of the set of tracking-ids that carry this client reference."""
    return f"mms:ref:{{{source}/{client_reference}}}"


class Entry(msgspec.Struct, frozen=True):
    """One postback of a record.

    Attributes:
        received_at: microseconds since the Unix epoch; the earliest arrival if it came twice.
    """

    track: Track
    rank: Rank
    received_at: int
    postback: Postback

    @property
    def time(self) -> str:
        """The provider's time, else the time of receipt, as 20 digits; see `timestamps.digits`."""
        if self.rank.time != NO_TIME:
            return self.rank.time
        return digits(datetime.fromtimestamp(self.received_at / 1_000_000, UTC))


class Known(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """What is known about one track of a record; the `data` of its events.

    Attributes:
        sent_at: when it was sent, RFC 3339 in UTC; None while no postback says so.
        completed_at: when its outcome became terminal; None while it is not.
        corrects: the terminal outcome that this one replaces, else None; of several, the one of
            highest rank.
    """

    tracking_id: str | None
    mms_id: str | None
    outcome: Outcome
    code: str
    status: str | None
    status_details: str | None
    sent_as: str | None
    from_: str | None
    to: str | None
    operator_id: str | None
    operator_name: str | None
    handset: str | None
    client_reference: str | None
    campaign_ref: str | None
    aggregator_id: str | None
    sent_at: str | None
    completed_at: str | None
    corrects: Outcome | None


class Record(msgspec.Struct, frozen=True):
    """All postbacks that were received for one key.

    Attributes:
        entries: the postbacks by rank, lowest first.
        dropped: whether more arrived than are kept.
    """

    key: Key
    entries: tuple[Entry, ...]
    dropped: bool = False

    def tracks(self) -> list[Track]:
        """The tracks that have postbacks, in the order of `Track`."""
        present = {entry.track for entry in self.entries}
        return [track for track in Track if track in present]

    def of(self, track: Track) -> list[Entry]:
        """This track's postbacks, the deciding one first."""
        return [entry for entry in reversed(self.entries) if entry.track is track]

    def known(self, track: Track) -> Known:
        """What is known about a track that is among `tracks()`.

        The deciding postback gives the outcome. A detail that it lacks comes from the
        highest-ranked postback of the same track that has it.
        """
        entries = self.of(track)
        top = entries[0]
        template = self.key.kind == "template"
        filled = _filled(entries)
        return Known(
            tracking_id=None if template else self.key.id,
            mms_id=filled.mms_id or (self.key.id if template else None),
            outcome=top.postback.outcome,
            code=top.postback.code,
            status=top.postback.status,
            status_details=top.postback.status_details,
            sent_as=filled.sent_as,
            from_=filled.from_,
            to=filled.to,
            operator_id=filled.operator_id,
            operator_name=filled.operator_name,
            handset=filled.handset,
            client_reference=filled.client_reference,
            campaign_ref=filled.campaign_ref,
            aggregator_id=filled.aggregator_id,
            sent_at=_sent_at(entries),
            completed_at=rfc3339_of(top.time) if top.rank.terminal else None,
            corrects=_corrected(entries),
        )


def _filled(entries: list[Entry]) -> Postback:
    """The first postback; each field that it lacks comes from the first one that has it."""
    values = astuple(entries[0].postback)
    for entry in entries[1:]:
        others = astuple(entry.postback)
        values = tuple(
            [other if value is None else value for value, other in zip(values, others, strict=True)]
        )
    return Postback(*values)


def _sent_at(entries: Iterable[Entry]) -> str | None:
    sent = [entry.time for entry in entries if entry.postback.outcome is Outcome.SENT]
    return rfc3339_of(min(sent)) if sent else None


def _corrected(entries: list[Entry]) -> Outcome | None:
    current = entries[0].postback.outcome
    terminal = (entry.postback.outcome for entry in entries if entry.rank.terminal)
    return next((outcome for outcome in terminal if outcome is not current), None)
