"""A batch as one AMQP message."""

import contextlib
import itertools
import math

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.postback import envelope
from shared.postback.envelope import Arrival, TracedArrival

arrivals = st.builds(
    Arrival,
    st.integers(0, 10**16 - 1),
    st.from_regex(r"[a-z0-9-]{1,32}", fullmatch=True),
    st.text(max_size=128),
    st.binary(max_size=200),
)


@given(st.lists(arrivals, max_size=20))
def test_a_batch_is_decoded_as_it_was_encoded(batch: list[Arrival]) -> None:
    assert envelope.decode(envelope.encode(batch)) == batch


@pytest.mark.parametrize("count", [0, 1, 15, 16, 500, 65535, 65536])
def test_a_batch_is_counted_by_its_first_bytes(count: int) -> None:
    assert envelope.count(envelope.encode([Arrival(1, "", "", b"")] * count)[:5]) == count


@given(st.binary(max_size=8))
def test_anything_can_be_counted(message: bytes) -> None:
    assert envelope.count(message) >= 0


def test_the_wire_format_is_the_contracts() -> None:
    batch = [Arrival(1, "acme", "text/xml", b"\xff\0"), Arrival(2, "default", "", b"{}")]
    assert msgspec.msgpack.decode(envelope.encode(batch)) == [
        [1, "acme", "text/xml", b"\xff\0"],
        [2, "default", "", b"{}"],
    ]
    assert envelope.CONTENT_TYPE == "application/vnd.mms-postbacks.batch+msgpack"
    assert (envelope.MAX_POSTBACKS, envelope.MAX_BYTES) == (500, 1024 * 1024)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xc1",
        b"{}",
        msgspec.msgpack.encode({"batch": []}),
        msgspec.msgpack.encode([[1, "acme", "text/xml"]]),
        msgspec.msgpack.encode([["now", "acme", "text/xml", b"{}"]]),
        msgspec.msgpack.encode([[1, "acme", None, b"{}"]]),
        msgspec.msgpack.encode([1]),
        b"\x91\x94\x01\xa4acme\xa1\xff\xc4\x00",  # a text that is not UTF-8
    ],
)
def test_a_message_that_is_no_batch_is_refused(message: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        envelope.decode(message)


def test_a_damaged_message_is_read_or_refused_and_nothing_else() -> None:
    message = envelope.encode([Arrival(1, "acme", "text/xml", b"{}"), Arrival(2**40, "é", "", b"")])
    for at, bit in itertools.product(range(len(message)), range(8)):
        damaged = bytearray(message)
        damaged[at] ^= 1 << bit
        with contextlib.suppress(msgspec.DecodeError):
            assert isinstance(envelope.decode(bytes(damaged)), list)


def test_a_truncated_message_is_refused() -> None:
    message = envelope.encode([Arrival(1, "acme", "text/xml", b"{}")])
    for length in range(len(message)):
        with pytest.raises(msgspec.DecodeError):
            envelope.decode(message[:length])


@example(bodies=[b"x" * 10] * 4, largest=34, traced=False)  # two arrivals without their array
@given(
    st.lists(st.binary(max_size=300), max_size=20),
    st.integers(min_value=1, max_value=1000),
    st.booleans(),
)
def test_a_batch_that_is_split_holds_the_same_in_pieces_of_the_size(
    bodies: list[bytes],
    largest: int,
    traced: bool,  # noqa: FBT001
) -> None:
    batch: list[Arrival] = [
        TracedArrival(at, "s", "", body, "trace") if traced else Arrival(at, "s", "", body)
        for at, body in enumerate(bodies)
    ]
    message = envelope.encode(batch)
    pieces = envelope.split(message, largest)
    assert all(len(piece) <= largest or postbacks == 1 for piece, postbacks in pieces)
    assert [each for piece, _ in pieces for each in envelope.decode_traced(piece)] == [
        *envelope.decode_traced(message)
    ]
    assert [len(envelope.decode(piece)) for piece, _ in pieces] == [count for _, count in pieces]
    assert len(envelope.split(message, math.inf)) == bool(bodies)
