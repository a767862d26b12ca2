"""Postbacks of other origins, for example inbound messages and SMS, as events.

The provider sends all postbacks of an account to one URL, so these arrive too. They have no record
and are not dead letters. Their subscribers decide what they mean.
"""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from shared.postback.dialects.fields import NotText
from shared.postback.dialects.parse import parse
from shared.postback.envelope import Arrival
from shared.postback.event import SOURCE_PREFIX, routing_word
from shared.postback.timestamps import rfc3339, utc

PREFIX: Final = "mms.passthrough."


class PassthroughData(msgspec.Struct, frozen=True):
    """The `data` of a passthrough event.

    Attributes:
        origin: as the provider wrote it.
        code: None when it has none.
        fields: all other fields, under canonical names: texts, and nested JSON as it was written.
    """

    origin: str
    code: str | None
    fields: dict[str, object]


class PassthroughEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A CloudEvent 1.0 in structured JSON.

    It has no `sequence`, because these events do not supersede each other. The same postback has
    the same id, however often the provider sends it.

    Attributes:
        subject: the tracking-id, else the mms-id; absent when there is neither.
    """

    type: str
    source: str
    id: str
    time: str
    subject: str | UnsetType = UNSET
    data: PassthroughData
    specversion: str = "1.0"
    datacontenttype: str = "application/json"

    @property
    def routing_key(self) -> str:
        """`passthrough.<origin>.<code or "unknown">`, at most 141 bytes."""
        return f"{self.type.removeprefix('mms.')}.{routing_word(self.data.code)}"

    def encode(self) -> bytes:
        return _encode(self)


def passthrough_of(arrival: Arrival, fields: Mapping[str, object]) -> PassthroughEvent:
    """The event for a postback of another origin.

    Args:
        arrival: the request as it reached the ingress.
        fields: as `parse` returns them for its body; `origin` is a text.

    Raises:
        UndecodableError: a field is nested more deeply than `MAX_DEPTH`.
    """
    if NotText in set(map(type, fields.values())):
        fields = parse(arrival.body, keep_nested=True)
    values = {
        name: value.value if isinstance(value, NotText) else value for name, value in fields.items()
    }
    origin, code = str(values.pop("origin")), values.get("code")
    if isinstance(code, str):
        del values["code"]
    else:
        code = None
    subject = values.get("tracking-id") or values.get("mms-id")
    timestamp = values.get("timestamp")
    moment = utc(timestamp) if isinstance(timestamp, str) else None
    identified = f"{arrival.source}\0".encode() + arrival.body
    return PassthroughEvent(
        type=f"{PREFIX}{routing_word(origin).lower()}",
        source=f"{SOURCE_PREFIX}{arrival.source}",
        id=hashlib.blake2b(identified, digest_size=16).hexdigest(),
        time=rfc3339(moment or datetime.fromtimestamp(arrival.received_at / 1_000_000, UTC)),
        subject=subject if isinstance(subject, str) else UNSET,
        data=PassthroughData(origin, code, values),
    )


def decode_passthrough(body: bytes) -> PassthroughEvent:
    """The passthrough event in the body of a message.

    Raises:
        msgspec.DecodeError: the body is not a passthrough event.
    """
    event: PassthroughEvent = _decode(body)
    if not event.type.startswith(PREFIX):
        raise msgspec.ValidationError(f"{event.type[:40]} is not the type of a passthrough event")
    return event


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(PassthroughEvent).decode
