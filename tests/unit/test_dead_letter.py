"""Dead letters as AMQP messages: single postbacks, batches, and messages that are neither."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import frame
from pamqp.commands import Basic
from pamqp.common import FieldTable
from pamqp.header import ContentHeader

from shared.postback import envelope
from shared.postback.dead_letter import (
    FORMER_REASONS,
    DeadLetter,
    Reason,
    dead_letter_of,
    decode_dead_letter,
    unreadable_batch,
)
from shared.postback.envelope import Arrival, TracedArrival
from workers.admin.dead.filter import Filter

AT = 1_795_486_200_000_000
ARRIVAL = Arrival(AT, "acme", "application/json", b"{}")
SINGLE: FieldTable = {
    "x-reason": "unknown-code",
    "x-error": "code X9 is not in the table",
    "x-source": "acme",
    "x-received-at": AT,
}

HOSTILE = st.text(st.sampled_from("aé\U0001f600\ud800\0\n\x9b"), min_size=1, max_size=9)
TEXTS = st.text(max_size=20) | st.builds(str.__mul__, HOSTILE, st.sampled_from([1, 200]))
"""Also longer than AMQP allows, with control characters, or no Unicode."""

ARRIVALS = st.builds(Arrival, st.just(AT), st.just("acme"), st.just(""), st.binary())
BATCHES = st.builds(envelope.encode, st.lists(ARRIVALS))
DEAD_LETTERS = st.builds(
    DeadLetter,
    reason=st.sampled_from([*Reason, *FORMER_REASONS]),
    error=TEXTS,
    source=st.just("") | TEXTS,
    received_at=st.none() | st.integers(0, 10**16),
    content_type=st.just(envelope.CONTENT_TYPE) | TEXTS,
    body=BATCHES | st.binary(),
    traceparent=TEXTS,
    batch_id=TEXTS,
)


def decoded(
    body: bytes, headers: FieldTable, content_type: str | None = None, batch_id: str | None = None
) -> DeadLetter:
    properties = Basic.Properties(
        content_type=content_type, headers=headers, correlation_id=batch_id
    )
    return decode_dead_letter(body, properties)


def through_amqp(properties: Basic.Properties) -> Basic.Properties:
    """The same properties, encoded as on a connection and decoded again."""
    encoded = frame.marshal(ContentHeader(body_size=1, properties=properties), 1)
    _, _, header = frame.unmarshal(encoded)
    assert isinstance(header, ContentHeader)
    return header.properties


@given(DEAD_LETTERS)
def test_decoding_returns_what_was_encoded(dead_letter: DeadLetter) -> None:
    found = decode_dead_letter(dead_letter.body, through_amqp(dead_letter.properties()))
    assert found == dead_letter
    assert (found.id, found.arrivals) == (dead_letter.id, dead_letter.arrivals)


@given(DEAD_LETTERS)
def test_the_minimal_properties_keep_the_body_and_the_reason(dead_letter: DeadLetter) -> None:
    found = decode_dead_letter(dead_letter.body, through_amqp(dead_letter.minimal_properties()))
    assert (found.body, found.reason) == (dead_letter.body, dead_letter.reason)


def test_the_message_of_a_postback() -> None:
    arrival = TracedArrival(AT, "acme", "text/xml", b"<x", "00-1-2-01")
    dead_letter = dead_letter_of(arrival, Reason.MALFORMED, "broken XML", "0123456789abcdef")
    properties = dead_letter.properties()
    assert properties.headers == {
        "x-reason": "malformed",
        "x-error": "broken XML",
        "x-source": "acme",
        "x-received-at": AT,
        "traceparent": "00-1-2-01",
    }
    assert (properties.content_type, properties.correlation_id) == ("text/xml", "0123456789abcdef")
    assert dead_letter.body == b"<x"


def test_a_single_postback() -> None:
    found = decoded(b"{}", SINGLE, "application/json", "0123456789abcdef")
    assert found.arrivals == (ARRIVAL,)
    assert found.batch_id == "0123456789abcdef"
    assert (found.reason, found.source, found.received_at) == ("unknown-code", "acme", AT)
    assert not found.is_batch


def test_a_batch_that_rabbitmq_moved() -> None:
    body = envelope.encode([ARRIVAL, Arrival(AT + 5, "default", "", b"<x/>")])
    headers: FieldTable = {"x-first-death-reason": "delivery_limit"}
    found = decoded(body, headers, envelope.CONTENT_TYPE)
    assert found.is_batch
    assert found.batch_id == envelope.batch_id(body)
    assert (found.reason, found.sources) == ("undeliverable", ("acme", "default"))
    assert (found.received_at, len(found.arrivals)) == (AT, 2)
    assert "delivery_limit" in found.error


def test_a_batch_that_a_worker_could_not_read_but_this_release_can() -> None:
    body = envelope.encode([ARRIVAL])
    dead_letter = unreadable_batch(body, envelope.CONTENT_TYPE, "no msgpack", "id")
    found = decode_dead_letter(body, dead_letter.properties())
    assert (found.is_batch, found.arrivals) == (True, (ARRIVAL,))
    assert (found.reason, found.error) == ("malformed", "no batch of postbacks: no msgpack")


def test_neither_a_postback_nor_a_batch() -> None:
    headers = SINGLE | {"x-source": "", "x-reason": "malformed"}
    found = decoded(b"\xc1", headers, envelope.CONTENT_TYPE)
    assert (found.is_batch, found.arrivals, found.sources) == (False, (), ())
    foreign = decoded(b"hello", {})
    assert (foreign.reason, foreign.arrivals) == ("undeliverable", ())
    assert not foreign.batch_id


def test_a_content_type_does_not_turn_a_postback_into_a_batch() -> None:
    """A client may claim any Content-Type; its postback stays one postback of its own source."""
    body = envelope.encode([Arrival(1, "other", "", b"{}")])
    found = decoded(body, SINGLE, envelope.CONTENT_TYPE)
    assert not found.is_batch
    assert [arrival.source for arrival in found.arrivals] == ["acme"]


def test_reading_a_dead_letter_does_not_change_its_id() -> None:
    once = decoded(b"{}", SINGLE)
    again = decoded(b"{}", SINGLE | {"x-delivery-count": 3})
    other = decoded(b"{} ", SINGLE)
    assert once.id == again.id != other.id
    assert len(once.id) == 12


@pytest.mark.parametrize(
    ("dead_letter", "expected"),
    [
        (decoded(b"{}", SINGLE), "c93ceaab4df5"),
        (decoded(envelope.encode([ARRIVAL]), {}, envelope.CONTENT_TYPE), "e3a6997ea927"),
    ],
    ids=["postback", "batch"],
)
def test_ids_are_the_same_in_all_releases(dead_letter: DeadLetter, expected: str) -> None:
    assert dead_letter.id == expected


def test_filters() -> None:
    single = decoded(b"{}", SINGLE)
    batch = decoded(envelope.encode([ARRIVAL]), {}, envelope.CONTENT_TYPE)
    assert Filter().matches(single)
    assert Filter(source="acme").matches(single)
    assert Filter(source="acme").matches(batch)
    assert not Filter(source="default").matches(batch)
    assert Filter(reason="undeliverable").matches(batch)
    assert not Filter(reason="undeliverable").matches(single)
    assert Filter(id=single.id).matches(single)
    assert not Filter(id=single.id).matches(batch)
    assert Filter(since=datetime.fromtimestamp(AT / 1e6 - 1, UTC)).matches(single)
    assert not Filter(since=datetime.fromtimestamp(AT / 1e6 + 1, UTC)).matches(single)
    assert not Filter(since=datetime.fromtimestamp(0, UTC)).matches(decoded(b"", {}))
