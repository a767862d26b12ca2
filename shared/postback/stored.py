"""A record as Redis holds it: one hash. `merge.lua` writes it, `read_record` reads it.

Format 2. A postback is two hash fields. One is its own. The name is its rank and track: one byte
for the phase, the time as decimal digits, two in a byte (a fraction of a second that is zero is
left out), the 12 bytes of the identity, and one byte for the track and for the number of the other
field. The value is the time of arrival in 7 bytes, then what a message's postbacks do not have in
common: code, status, details. The other field has what they usually have in common: numbers,
carrier, references. Its name is one character. Postbacks with the same values have the same field,
so these are stored once. Both are msgpack arrays of short forms (see `words`), without the empty
fields at the end. A timestamp is stored only if the rank does not have it.

Format 1, of 0.2.0 and earlier releases. A postback is one hash field. Its name is one character for
the track and the rank as text. Its value is the time of arrival as 16 digits, then all fields as
msgpack.

A hash may have postbacks of both formats; a postback that comes again is recognised in both.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Final

import msgspec
from msgspec.structs import astuple

from shared.errors import UnreadableRecordError
from shared.postback.codes import CODES, Track, phase_of
from shared.postback.formats import unreadable
from shared.postback.postback import Key, NormalisedPostback, Postback, Rank
from shared.postback.record import Entry, Record
from shared.postback.timestamps import NO_TIME, rfc3339_of
from shared.postback.words import Short, restore, shorten

TIME_BYTES: Final = 7
"""Bytes of a time of arrival in format 2: microseconds since the Unix epoch."""

DROPPED: Final = b"dropped"
"""The hash field that says that postbacks were dropped because of `record.MAX_POSTBACKS_KEPT`."""

Arguments = tuple[bytes, ...]
"""What `merge.lua` takes for one postback."""


def format_1(received_at: int, normalised: NormalisedPostback) -> Arguments:
    """The name and the value of a postback's field in format 1.

    Args:
        received_at: its first arrival, microseconds since the Unix epoch.
    """
    name = f"{_CHARACTERS[normalised.track]}{normalised.rank}".encode()
    return name, b"%0*d%b" % (_TIME_DIGITS, received_at, _pack(normalised.postback))


def format_2(received_at: int, normalised: NormalisedPostback) -> Arguments:
    """The name and the value of a postback's own field, and the value of the common field.

    `merge.lua` adds the number of the common field to the name.

    Args:
        received_at: its first arrival, microseconds since the Unix epoch.
    """
    phase, time, identity = normalised.rank
    digits = time[:14] if time.endswith("000000") else time
    name = _from_hex(f"0{phase}{digits}{identity}{_LAST_BYTES[normalised.track]}")
    *texts, extra = astuple(normalised.postback)
    if time != NO_TIME:
        texts[_TIMESTAMP] = None  # the name has it
    shorts: list[Short | dict[str, str]] = [*shorten(texts), extra]
    own, common = _packed([*_own_of(shorts)]), _packed([*_common_of(shorts)])
    return name, received_at.to_bytes(TIME_BYTES, "big") + own, common


FORMATS: Final[Mapping[int, Callable[[int, NormalisedPostback], Arguments]]] = {
    1: format_1,
    2: format_2,
}
"""How a postback is written, by the number of the format."""


def read_record(key: Key, fields: Mapping[bytes, bytes]) -> Record | None:
    """A record from its Redis hash; None when the hash is empty.

    Raises:
        UnreadableRecordError: it has an entry in a newer format, or one that is damaged.
    """
    if not fields:
        return None
    common = {name: _common(value) for name, value in fields.items() if len(name) == 1}
    entries = [
        _entry_2(name, value, common) if len(name) in _LENGTHS else _entry_1(name, value)
        for name, value in fields.items()
        if len(name) > 1 and name != DROPPED
    ]
    if common and _LENGTH_1 in map(len, fields):
        entries = _without_twins(entries)
    entries.sort(key=_rank)
    return Record(key, tuple(entries), DROPPED in fields)


_CHARACTERS: Final = {Track.MESSAGE: "m", Track.DISCOVERY: "d", Track.TEMPLATE: "t"}
_TRACKS_1: Final = {character: track for track, character in _CHARACTERS.items()}
_TIME_DIGITS: Final = 16
_LENGTH_1: Final = 46  # of names

# The last byte of a name: the track's place here times `_NUMBERS`, and the number of the field.
_TRACKS_2: Final = (Track.MESSAGE, Track.DISCOVERY, Track.TEMPLATE)
_NUMBERS: Final = 80
_LAST_BYTES: Final = {track: f"{_NUMBERS * at:02x}" for at, track in enumerate(_TRACKS_2)}
_COMMON_NAMES: Final = [bytes((ord("0") + number,)) for number in range(_NUMBERS)]
_SHORT: Final = 21  # the length of a name without a fraction of a second
_LENGTHS: Final = frozenset({_SHORT, 24})


class _Own(msgspec.Struct, frozen=True, array_like=True):
    """The fields of a postback's own hash field. A stored format: add at the end only."""

    code: Short
    status: Short = None
    status_details: Short = None
    sent_as: Short = None
    handset: Short = None
    os: Short = None
    timestamp: Short = None
    extra: dict[str, str] | None = None


class _Common(msgspec.Struct, frozen=True, array_like=True):
    """The fields that are stored once for postbacks with the same values; add at the end only."""

    mms_id: Short = None
    from_: Short = None
    to: Short = None
    operator_id: Short = None
    operator_name: Short = None
    client_reference: Short = None
    campaign_ref: Short = None
    aggregator_id: Short = None
    audio_name: Short = None
    video_name: Short = None
    image_name: Short = None
    from_mask: Short = None


_FIELDS: Final = Postback.__struct_fields__
_TIMESTAMP: Final = _FIELDS.index("timestamp")
_OWN_FIELDS: Final = _Own.__struct_fields__
_COMMON_FIELDS: Final = _Common.__struct_fields__
_own_of: Final = itemgetter(*map(_FIELDS.index, _OWN_FIELDS))
_common_of: Final = itemgetter(*map(_FIELDS.index, _COMMON_FIELDS))
_postback_of: Final = itemgetter(*map((*_OWN_FIELDS, *_COMMON_FIELDS).index, _FIELDS))

_from_hex: Final = bytes.fromhex
_pack: Final = msgspec.msgpack.Encoder().encode
_unpack_1: Final = msgspec.msgpack.Decoder(Postback).decode
_unpack_own: Final = msgspec.msgpack.Decoder(_Own).decode
_unpack_common: Final = msgspec.msgpack.Decoder(_Common).decode


def _rank(entry: Entry) -> Rank:
    return entry.rank


def _without_twins(entries: Iterable[Entry]) -> list[Entry]:
    """Each postback once, with its earliest arrival.

    A worker of release 0.2.0 does not see format 2, and may have added a postback again.
    """
    latest_first = sorted(entries, key=attrgetter("received_at"), reverse=True)
    return [*{(entry.track, entry.rank): entry for entry in latest_first}.values()]


def _packed(values: list[Short | dict[str, str]]) -> bytes:
    while values and values[-1] is None:
        values.pop()
    return _pack(values)


def _common(packed: bytes) -> list[str | None]:
    try:
        return restore(astuple(_unpack_common(packed)))
    except (msgspec.DecodeError, LookupError, ValueError) as error:
        raise UnreadableRecordError(f"common fields: {error}") from error


def _entry_1(field: bytes, value: bytes) -> Entry:
    name = field.decode(errors="backslashreplace")
    packed = value[_TIME_DIGITS:]
    try:
        rank = Rank.parse(name[1:])
        return _entry(_TRACKS_1[name[0]], rank, int(value[:_TIME_DIGITS]), _unpack_1(packed))
    except (msgspec.DecodeError, LookupError, ValueError) as error:
        raise UnreadableRecordError(f"entry {name[:60]}: {unreadable(packed, error)}") from error


def _entry_2(name: bytes, value: bytes, common: Mapping[bytes, Sequence[str | None]]) -> Entry:
    digits = name.hex()
    try:
        track, number = divmod(name[-1], _NUMBERS)
        time = digits[2:16] + "000000" if len(name) == _SHORT else digits[2:22]
        rank = Rank(name[0], time, digits[-26:-2])
        received_at = int.from_bytes(value[:TIME_BYTES], "big")
        *shorts, extra = astuple(_unpack_own(value[TIME_BYTES:]))
        own = restore(shorts)
        if time != NO_TIME:
            own[-1] = rfc3339_of(time)
        texts = *own, extra, *common[_COMMON_NAMES[number]]
        return _entry(_TRACKS_2[track], rank, received_at, Postback(*_postback_of(texts)))
    except (msgspec.DecodeError, LookupError, ValueError) as error:
        raise UnreadableRecordError(f"entry {digits}: {error}") from error


def _entry(track: Track, rank: Rank, received_at: int, postback: Postback) -> Entry:
    # Release 0.1.0 ranked every unknown status text as a delivery, and the name still has that
    # phase. The postback itself gives the right phase. A code of a newer release is a LookupError.
    phase = phase_of(CODES[postback.code].track, postback.outcome)
    if phase != rank.phase:
        rank = rank._replace(phase=phase)
    return Entry(track=track, rank=rank, received_at=received_at, postback=postback)
