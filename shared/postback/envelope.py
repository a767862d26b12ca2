"""A batch of postbacks as one AMQP message: msgpack with the raw bodies, which are not decoded."""

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
        source: the provider account; the last part of the URL's path, or `default`.
        content_type: the request's Content-Type, empty when it had none. Not used for decoding.
        body: the raw body of the request.
    """

    received_at: Annotated[int, Meta(ge=0, lt=10**16)]
    source: str
    content_type: str
    body: bytes


class TracedArrival(Arrival, frozen=True, array_like=True, gc=False):
    """An arrival that is traced. A process without tracing reads it as an `Arrival`.

    Attributes:
        traceparent: W3C Trace Context of the request's span; empty when it was not traced.
    """

    traceparent: str = ""


def traceparent(arrival: Arrival) -> str:
    """The trace context of an arrival, empty when there is none."""
    return arrival.traceparent if isinstance(arrival, TracedArrival) else ""


def encode(batch: Sequence[Arrival]) -> bytes:
    """Encode a batch as the body of one AMQP message."""
    return _encode(batch)


def split(encoded: bytes, largest: float) -> list[tuple[bytes, int]]:
    """Split an encoded batch into smaller ones; the bytes of each postback stay the same.

    Args:
        largest: bytes of one batch; only a batch of a single postback may be larger.

    Returns:
        The encoded batches, each with its number of postbacks.

    Raises:
        msgspec.DecodeError: it is no batch.
    """
    pieces: list[list[msgspec.Raw]] = []
    size = 0
    for raw in _decode_raw(encoded):
        length = len(memoryview(raw))
        if not pieces or size + length > largest:
            pieces.append([])
            size = _ARRAY_HEADER
        pieces[-1].append(raw)
        size += length
    return [(_encode(piece), len(piece)) for piece in pieces]


def count(encoded: bytes) -> int:
    """The number of postbacks in an encoded batch, by its first bytes; 1 when it is no batch."""
    first = encoded[:1]
    if first == b"\xdc":
        return int.from_bytes(encoded[1:3], "big")
    if first == b"\xdd":
        return int.from_bytes(encoded[1:5], "big")
    return first[0] & 0x0F if b"\x90" <= first <= b"\x9f" else 1


def batch_id(encoded: bytes) -> str:
    """The id of an encoded batch in logs and events: a digest, 16 hexadecimal digits.

    So a batch keeps its id through the spool, and when it is published again.
    """
    return hashlib.blake2b(encoded, digest_size=8).hexdigest()


def decode(encoded: bytes) -> list[Arrival]:
    """Decode the body of a message.

    Raises:
        msgspec.DecodeError: it is no batch, or a batch in a newer format.
    """
    with _explained(encoded):
        return _decode(encoded)


def decode_traced(encoded: bytes) -> Sequence[Arrival]:
    """As `decode`, with the trace context; it is empty in batches of a process without tracing.

    Raises:
        msgspec.DecodeError: as `decode`.
    """
    with _explained(encoded):
        return _decode_traced(encoded)


@contextlib.contextmanager
def _explained(encoded: bytes) -> Iterator[None]:
    try:
        yield
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise msgspec.DecodeError(unreadable(encoded, error)) from error


_encode: Final = msgspec.msgpack.Encoder().encode
_ARRAY_HEADER: Final = 5  # bytes, at most
_decode_raw: Final = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_decode: Final = msgspec.msgpack.Decoder(list[Arrival]).decode
_decode_traced: Final = msgspec.msgpack.Decoder(list[TracedArrival]).decode
