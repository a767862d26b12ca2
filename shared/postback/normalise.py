"""From the fields of a body to a normalised postback, or to the reason why it is a dead letter."""

import hashlib
from typing import Final, cast

import msgspec

from shared.errors import OtherOriginError, UndecodableError
from shared.postback.codes import (
    CODES,
    Track,
    canonical_status,
    outcome_of,
    phase_of,
    unknown_status,
)
from shared.postback.dead_letter import Reason
from shared.postback.dialects.fields import FIELDS, Fields, NotText
from shared.postback.dialects.parse import parse
from shared.postback.postback import Key, NormalisedPostback, Postback, Rank
from shared.postback.timestamps import NO_TIME, digits, rfc3339_of, utc

ORIGIN: Final = "MMS_MT"
"""The origin of our postbacks; postbacks of other origins are passed on."""

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


def decode(source: str, body: bytes) -> NormalisedPostback:
    """From a request's raw body to a normalised postback.

    Args:
        source: the provider account that sent it.

    Raises:
        OtherOriginError: its origin is not `ORIGIN`.
        UndecodableError: it is a dead letter; carries the reason.
    """
    return normalise(source, parse(body))


def normalise(source: str, fields: Fields) -> NormalisedPostback:
    """The postback that these fields, as `parse` returns them, stand for.

    Args:
        source: the provider account that sent it.

    Raises:
        OtherOriginError: its origin is not `ORIGIN`.
        UndecodableError: it is a dead letter; carries the reason.
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
# The fields that name a template's content, by code: the content that failed comes first.
_CONTENT: Final = {
    "E002": ("audio-name", "video-name", "image-name"),
    "E003": ("video-name", "audio-name", "image-name"),
    "E004": ("image-name", "audio-name", "video-name"),
    "N003": ("audio-name",),
}
_KNOWN: Final = frozenset(FIELDS)
_LOWEST_LIMIT: Final = min(MAX_TEXT, *LIMITS.values())
_pack: Final = msgspec.msgpack.Encoder().encode


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
    if max(map(len, texts.values())) > _LOWEST_LIMIT or max(map(len, texts)) > MAX_ID:
        for name, text in texts.items():
            _check_length(name, text)
    if len(texts) > MAX_EXTRA:  # with fewer, there cannot be too many unknown fields
        unknown = len(texts.keys() - _KNOWN)
        if unknown > MAX_EXTRA:
            detail = f"{unknown} unknown fields, over the limit of {MAX_EXTRA}"
            raise UndecodableError(Reason.TOO_LONG, detail)


def _check_length(name: str, text: str) -> None:
    limit = LIMITS.get(name, MAX_TEXT)
    if len(text) > limit:
        detail = f"{name[:40]} has {len(text)} characters, over its limit of {limit}"
        raise UndecodableError(Reason.TOO_LONG, detail)
    if len(name) > MAX_ID:
        detail = f"a field's name has {len(name)} characters, over its limit of {MAX_ID}"
        raise UndecodableError(Reason.TOO_LONG, detail)


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
