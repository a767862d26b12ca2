"""A terminal outcome as a CloudEvent 1.0, and the routing key that subscribers bind to."""

import hashlib
import re
from typing import Final

import msgspec

from shared.postback.codes import Track
from shared.postback.record import Known, Record
from shared.postback.timestamps import rfc3339_of

CONTENT_TYPE: Final = "application/cloudevents+json"

SOURCE_PREFIX: Final = "/mms-postbacks/"
"""An event's `source` is this and the provider account."""


class Event(msgspec.Struct, frozen=True):
    """A CloudEvent 1.0 in structured JSON; field names are the specification's.

    Attributes:
        sequence: the rank of the deciding postback, a text that sorts (the CloudEvents extension
            of that name). Of all events of one source, subject and track the event with the
            highest one has the right outcome. Empty in events of release 0.1.0 and before.
    """

    type: str
    source: str
    id: str
    time: str
    subject: str
    data: Known
    sequence: str = ""
    specversion: str = "1.0"
    datacontenttype: str = "application/json"

    @property
    def routing_key(self) -> str:
        """`<track>.<outcome>.<operator-id or "unknown">`."""
        return f"{self.type.removeprefix('mms.')}.{routing_word(self.data.operator_id)}"

    def encode(self) -> bytes:
        return _encode(self)


def routing_word(text: str | None) -> str:
    """A text from outside as one word of a routing key, at most 64 bytes; `unknown` for none."""
    return _UNROUTABLE.sub("_", (text or "unknown")[:64])


def event_of(record: Record, track: Track) -> Event:
    """The event of a track's present outcome, which must be terminal.

    Its id depends on the key, the track and the deciding postback alone. So the same change has the
    same id when it is published again.
    """
    top = record.of(track)[0]
    change = f"{record.key.redis}\0{track}\0{top.rank.identity}".encode()
    return Event(
        type=f"mms.{track}.{top.postback.outcome}",
        source=f"{SOURCE_PREFIX}{record.key.source}",
        id=hashlib.blake2b(change, digest_size=16).hexdigest(),
        time=rfc3339_of(top.time),
        subject=record.key.id,
        data=record.known(track),
        sequence=str(top.rank),
    )


def decode_event(body: bytes) -> Event:
    """The event in the body of a message.

    Raises:
        msgspec.DecodeError: the body is not an event of this kind.
    """
    return _decode(body)


_UNROUTABLE: Final = re.compile(r"[^A-Za-z0-9_-]")  # a dot would split the word
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Event).decode
