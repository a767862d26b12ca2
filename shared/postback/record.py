"""A record: the set of postbacks received for one key, and what is known because of them.

In Redis a record is a hash. Each postback is one field. The field's name is one character for the
track and the postback's rank; its value is the time of the first arrival and the postback's fields.
The highest name of a track decides its outcome, so nothing else has to be kept consistent.
Everything here is a function of that set, and independent of the order of arrival.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec.structs import astuple

from shared.errors import UnreadableRecordError
from shared.postback.codes import CODES, Outcome, Track, phase_of
from shared.postback.formats import unreadable
from shared.postback.postback import Key, NormalisedPostback, Postback, Rank
from shared.postback.timestamps import NO_TIME, digits, rfc3339_of

MAX_POSTBACKS_KEPT: Final = 64
"""Postbacks kept for one key. Over this number those of lowest rank are dropped."""

DROPPED: Final = "dropped"
"""The hash field that says that postbacks were dropped because of `MAX_POSTBACKS_KEPT`."""

_TRACK_CHARACTERS: Final = {Track.MESSAGE: "m", Track.DISCOVERY: "d", Track.TEMPLATE: "t"}
_TRACKS: Final = {character: track for track, character in _TRACK_CHARACTERS.items()}
_TIME_DIGITS: Final = 16

_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(Postback).decode


def entry_name(normalised: NormalisedPostback) -> str:
    """The name of the hash field of a postback."""
    return f"{_TRACK_CHARACTERS[normalised.track]}{normalised.rank}"


def entry_value(received_at: int, postback: Postback) -> bytes:
    """The value of the hash field of a postback.

    Args:
        received_at: its first arrival, microseconds since the Unix epoch.
    """
    return b"%0*d%b" % (_TIME_DIGITS, received_at, _pack(postback))


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


def read_record(key: Key, fields: Mapping[bytes, bytes]) -> Record | None:
    """A record from its Redis hash; None when the hash is empty.

    Raises:
        UnreadableRecordError: it has an entry in a newer format, or one that is damaged.
    """
    if not fields:
        return None
    dropped = DROPPED.encode() in fields
    entries = (_entry(name, value) for name, value in fields.items() if name != DROPPED.encode())
    return Record(key, tuple(sorted(entries, key=lambda entry: entry.rank)), dropped)


def _entry(field: bytes, value: bytes) -> Entry:
    name = field.decode(errors="backslashreplace")
    packed = value[_TIME_DIGITS:]
    try:
        postback = _unpack(packed)
        track = CODES[postback.code].track  # a LookupError if a newer release wrote the code
        # Release 0.1.0 ranked every unknown status text as a delivery, and the name still has that
        # phase. The postback itself gives the right phase.
        phase = phase_of(track, postback.outcome)
        return Entry(
            track=_TRACKS[name[0]],
            rank=Rank.parse(name[1:])._replace(phase=phase),
            received_at=int(value[:_TIME_DIGITS]),
            postback=postback,
        )
    except (msgspec.DecodeError, LookupError, ValueError) as error:
        raise UnreadableRecordError(f"entry {name[:60]}: {unreadable(packed, error)}") from error


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
