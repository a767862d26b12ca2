"""A postback: its fields made one spelling, where it belongs, its identity and its rank.

Two requests are the same postback when their normalised fields are the same, however they were
spelled and whenever they came: that is the identity. The rank is a string that sorts postbacks of
one track by how much they decide: phase, then the provider's time in UTC, then identity. Both are
functions of the fields alone, which is why the order of arrival cannot matter.
"""

import hashlib
from datetime import UTC, datetime
from typing import Final, NamedTuple, cast

import msgspec

from shared.errors import OtherOriginError, UndecodableError
from shared.postback.codes import (
    CODES,
    TERMINAL_PHASE,
    Outcome,
    Track,
    canonical_status,
    outcome_of,
    phase_of,
    unknown_status,
)
from shared.postback.dead_letter import Reason
from shared.postback.dialects import FIELDS, Fields, NotText, parse

ORIGIN: Final = "MMS_MT"

MAX_ID: Final = 256
MAX_TEXT: Final = 1024
MAX_EXTRA: Final = 32
LIMITS: Final = {
    "tracking-id": MAX_ID,
    "mms-id": MAX_ID,
    "operator-id": MAX_ID,
    "aggregator-id": MAX_ID,
    "client-reference": 64,
    "status-details": 4096,
}
"""Characters allowed in a field; `MAX_TEXT` for all others. At most `MAX_EXTRA` unknown fields."""

NO_TIME: Final = "0" * 20
"""A rank's time when the postback carries none."""


class Key(NamedTuple):
    """What a record is filed under.

    Attributes:
        kind: `message` (also for discovery) or `template`.
        source: the provider account that sent the postback.
        id: the tracking-id, or the template's mms-id.
    """

    kind: str
    source: str
    id: str

    @property
    def redis(self) -> str:
        """The Redis key; braces keep all of one record in one cluster slot."""
        return f"mms:{self.kind}:{{{self.source}/{self.id}}}"


class Postback(msgspec.Struct, frozen=True, array_like=True):
    """The normalised fields of one postback, in the order in which they are stored.

    The order is a stored format: add at the end only, with a default; see `formats`. The id that
    the record is filed under is not repeated here, nor is `origin`, which is always `MMS_MT`.
    """

    code: str
    status: str | None = None
    status_details: str | None = None
    sent_as: str | None = None
    mms_id: str | None = None
    from_: str | None = None
    to: str | None = None
    operator_id: str | None = None
    operator_name: str | None = None
    timestamp: str | None = None
    handset: str | None = None
    client_reference: str | None = None
    campaign_ref: str | None = None
    aggregator_id: str | None = None
    audio_name: str | None = None
    video_name: str | None = None
    image_name: str | None = None
    from_mask: str | None = None
    os: str | None = None
    extra: dict[str, str] | None = None

    @property
    def track(self) -> Track:
        return CODES[self.code].track

    @property
    def outcome(self) -> Outcome:
        return outcome_of(self.code, self.status)


class Rank(NamedTuple):
    """A rank taken apart. Its text has fixed width and only `[0-9a-f]`: any collation sorts it.

    Attributes:
        phase: how far in its life the track is with this postback.
        time: the provider's time in UTC as 20 digits, `YYYYMMDDhhmmss` and microseconds; zeros
            when the postback carries none.
        identity: 24 hexadecimal digits.
    """

    phase: int
    time: str
    identity: str

    def __str__(self) -> str:
        return f"{self.phase}{self.time}{self.identity}"

    @classmethod
    def parse(cls, text: str) -> "Rank":
        return cls(int(text[0]), text[1:21], text[21:])

    @property
    def moment(self) -> datetime | None:
        """The provider's time, or None when the postback carries none."""
        if self.time == NO_TIME:
            return None
        return datetime.fromisoformat(f"{self.time[:8]}T{self.time[8:14]}.{self.time[14:]}+00:00")

    @property
    def terminal(self) -> bool:
        return self.phase >= TERMINAL_PHASE


class NormalisedPostback(NamedTuple):
    """A postback with the record it belongs to and its rank there.

    Attributes:
        unknown_status: whether its status text should decide its outcome, and is none that we know.
    """

    key: Key
    track: Track
    rank: Rank
    postback: Postback
    unknown_status: bool = False


def decode(source: str, body: bytes) -> NormalisedPostback:
    """From a request's raw body to a filed postback.

    Raises:
        OtherOriginError: it is readable, but no postback of ours.
        UndecodableError: it belongs in the dead letters; carries the reason.
    """
    return file(source, parse(body))


def file(source: str, fields: Fields) -> NormalisedPostback:
    """Make sense of a postback's fields, as `dialects.parse` returns them.

    Raises:
        OtherOriginError: it is no postback of ours.
        UndecodableError: it belongs in the dead letters; carries the reason.
    """
    row = CODES[_code(fields)]
    texts = _texts(fields)
    _check_lengths(texts)
    if status := texts.get("status"):
        texts["status"] = canonical_status(status)
    time = NO_TIME
    if (timestamp := texts.get("timestamp")) and (moment := utc(timestamp)):
        time = digits(moment)
        texts["timestamp"] = rfc3339_of(time)
    key = _key(source, row.track, texts)
    phase = phase_of(row.track, outcome_of(texts["code"], texts.get("status")))
    rank = Rank(phase, time, _identity(texts))
    if row.track is not Track.TEMPLATE:
        del texts["tracking-id"]
    unknown = row.refined and unknown_status(texts["code"], status)
    return NormalisedPostback(key, row.track, rank, _postback(texts), unknown)


# The fields' names in the order of `Postback`.
_STORED: Final = tuple(
    "from" if attribute == "from_" else attribute.replace("_", "-")
    for attribute in Postback.__struct_fields__
    if attribute != "extra"
)
_STORED_NAMES: Final = frozenset(_STORED)
# Where a template's postback names its content, by code: the one that failed comes first.
_CONTENT: Final = {
    "E002": ("audio-name", "video-name", "image-name"),
    "E003": ("video-name", "audio-name", "image-name"),
    "E004": ("image-name", "audio-name", "video-name"),
    "N003": ("audio-name",),
}
_KNOWN: Final = frozenset(FIELDS)
_ANY_LENGTH: Final = min(MAX_TEXT, *LIMITS.values())  # which no field minds
_pack: Final = msgspec.msgpack.Encoder().encode


def digits(moment: datetime) -> str:
    """A UTC datetime as a rank has it."""
    t = moment.isoformat(timespec="microseconds")
    return f"{t[:4]}{t[5:7]}{t[8:10]}{t[11:13]}{t[14:16]}{t[17:19]}{t[20:26]}"


def rfc3339(moment: datetime) -> str:
    """A UTC datetime as RFC 3339 with a `Z`."""
    return rfc3339_of(digits(moment))


def rfc3339_of(t: str) -> str:
    """A rank's time as RFC 3339 with a `Z`; a fraction of a second only where there is one."""
    fraction = "" if t.endswith("000000") else f".{t[14:]}"
    return f"{t[:4]}-{t[4:6]}-{t[6:8]}T{t[8:10]}:{t[10:12]}:{t[12:14]}{fraction}Z"


def _code(fields: Fields) -> str:
    origin, code = fields.get("origin"), fields.get("code")
    if not isinstance(origin, str):
        raise UndecodableError(Reason.INVALID, "no origin")
    if origin != ORIGIN:
        raise OtherOriginError(fields)
    if not isinstance(code, str):
        raise UndecodableError(Reason.INVALID, "no code")
    if code not in CODES:
        raise UndecodableError(Reason.UNKNOWN_CODE, f"code {code[:40]} is not in the table")
    return code


def _texts(fields: Fields) -> dict[str, str]:
    if NotText in set(map(type, fields.values())):
        for name, value in fields.items():
            if isinstance(value, NotText):
                detail = f"{name[:40]} is {value.what}, not text or number"
                raise UndecodableError(Reason.INVALID, detail)
    texts = cast("dict[str, str]", fields).copy()
    del texts["origin"]
    return texts


def _check_lengths(texts: dict[str, str]) -> None:
    if max(map(len, texts.values())) > _ANY_LENGTH or max(map(len, texts)) > MAX_ID:
        for name, text in texts.items():
            _check_length(name, text)
    if len(texts) > MAX_EXTRA:  # else there is nothing to count
        unknown = len(texts.keys() - _KNOWN)
        if unknown > MAX_EXTRA:
            detail = f"{unknown} fields that we do not know, over the limit of {MAX_EXTRA}"
            raise UndecodableError(Reason.TOO_LONG, detail)


def _check_length(name: str, text: str) -> None:
    limit = LIMITS.get(name, MAX_TEXT)
    if len(text) > limit:
        detail = f"{name[:40]} has {len(text)} characters, over its {limit}"
        raise UndecodableError(Reason.TOO_LONG, detail)
    if len(name) > MAX_ID:
        detail = f"a field's name has {len(name)} characters, over its {MAX_ID}"
        raise UndecodableError(Reason.TOO_LONG, detail)


def utc(timestamp: str) -> datetime | None:
    """A timestamp in UTC; None when it is no ISO 8601. Without an offset it is taken as UTC."""
    if timestamp[11:13] == "24":  # some versions of Python take it as midnight, others do not
        return None
    try:
        moment = datetime.fromisoformat(timestamp.upper())
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _key(source: str, track: Track, texts: dict[str, str]) -> Key:
    if track is not Track.TEMPLATE:
        if tracking_id := texts.get("tracking-id"):
            return Key("message", source, tracking_id)
        raise UndecodableError(Reason.NO_KEY, f"{texts['code']} without a tracking-id")
    for name in ("mms-id", *_CONTENT[texts["code"]]):
        if found := texts.get(name):
            if len(found) > MAX_ID:
                detail = f"{name} is this template's id and has over {MAX_ID} characters"
                raise UndecodableError(Reason.TOO_LONG, detail)
            return Key("template", source, found)
    raise UndecodableError(Reason.NO_KEY, f"{texts['code']} without mms-id or content name")


def _identity(texts: dict[str, str]) -> str:
    return hashlib.blake2b(_pack(sorted(texts.items())), digest_size=12).hexdigest()


def _postback(texts: dict[str, str]) -> Postback:
    extra = None
    if not texts.keys() <= _STORED_NAMES:
        extra = {name: texts[name] for name in sorted(texts.keys() - _STORED_NAMES)}
    return Postback(*map(texts.get, _STORED), extra)  # type: ignore[arg-type, call-arg]  # all fit
