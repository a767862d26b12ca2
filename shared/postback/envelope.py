"""A batch of postbacks as one AMQP message: msgpack, bodies as they came, nothing decoded."""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from shared.postback.formats import unreadable

CONTENT_TYPE: Final = "application/vnd.mms-postbacks.batch+msgpack"
MAX_POSTBACKS: Final = 500
MAX_BYTES: Final = 1024 * 1024


class Arrival(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One request as it reached the ingress.

    The order is a stored format: add at the end only, with a default; see `formats`.

    Attributes:
        received_at: microseconds since the Unix epoch.
        source: which provider account it is; the last part of the URL's path, or `default`.
        content_type: the request's Content-Type, empty when it had none. Kept, never believed.
        body: the request's body, as it came.
    """

    received_at: Annotated[int, Meta(ge=0, lt=10**16)]
    source: str
    content_type: str
    body: bytes


class TracedArrival(Arrival, frozen=True, array_like=True, gc=False):
    """An arrival that is traced. Who does not trace reads it as an `Arrival`.

    Attributes:
        traceparent: W3C Trace Context of the request's span; empty when it was not traced.
    """

    traceparent: str = ""


def traceparent(arrival: Arrival) -> str:
    """The trace context that an arrival came with, empty when there is none."""
    return arrival.traceparent if isinstance(arrival, TracedArrival) else ""


def encode(batch: Sequence[Arrival]) -> bytes:
    """A batch as the body of one AMQP message."""
    return _encode(batch)


def split(message: bytes, largest: float) -> list[tuple[bytes, int]]:
    """A batch as several, each with its count of postbacks; no postback's bytes are changed.

    Args:
        largest: bytes of a message; only one that holds a single postback may be larger.

    Raises:
        msgspec.DecodeError: it holds no batch.
    """
    pieces: list[list[msgspec.Raw]] = []
    size = 0
    for raw in _decode_raw(message):
        length = len(memoryview(raw))
        if not pieces or size + length > largest:
            pieces.append([])
            size = _ARRAY_HEADER
        pieces[-1].append(raw)
        size += length
    return [(_encode(piece), len(piece)) for piece in pieces]


def count(message: bytes) -> int:
    """How many postbacks a batch holds, as its first bytes say; 1 for what is no batch."""
    first = message[:1]
    if first == b"\xdc":
        return int.from_bytes(message[1:3], "big")
    if first == b"\xdd":
        return int.from_bytes(message[1:5], "big")
    return first[0] & 0x0F if b"\x90" <= first <= b"\x9f" else 1


def batch_id(message: bytes) -> str:
    """What logs and events call an encoded batch: a function of its bytes, 16 hexadecimal digits.

    So a batch keeps its id through the spool, and when it is published again.
    """
    return hashlib.blake2b(message, digest_size=8).hexdigest()


def decode(message: bytes) -> list[Arrival]:
    """The batch that a message's body holds.

    Raises:
        msgspec.DecodeError: it holds none, or one in a newer format.
    """
    with _undecodable(message):
        return _decode(message)


def decode_traced(message: bytes) -> Sequence[Arrival]:
    """As `decode`, with what traces need; who did not trace wrote an empty `traceparent`.

    Raises:
        msgspec.DecodeError: it holds none.
    """
    with _undecodable(message):
        return _decode_traced(message)


@contextlib.contextmanager
def _undecodable(message: bytes) -> Iterator[None]:
    try:
        yield
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise msgspec.DecodeError(unreadable(message, error)) from error


_encode: Final = msgspec.msgpack.Encoder().encode
_ARRAY_HEADER: Final = 5  # bytes, at most
_decode_raw: Final = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_decode: Final = msgspec.msgpack.Decoder(list[Arrival]).decode
_decode_traced: Final = msgspec.msgpack.Decoder(list[TracedArrival]).decode
