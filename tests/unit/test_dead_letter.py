"""Dead letters as they come from the queue: single postbacks, batches, and neither."""

from datetime import UTC, datetime
from unittest.mock import Mock

from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic
from pamqp.common import FieldTable
from pamqp.header import ContentHeader

from shared.postback import envelope
from shared.postback.envelope import Arrival
from workers.admin.dead.entry import Filter, read_letter

AT = 1_795_486_200_000_000
ARRIVAL = Arrival(AT, "acme", "application/json", b"{}")
SINGLE: FieldTable = {
    "x-reason": "unknown-code",
    "x-error": "code X9 is not in the table",
    "x-source": "acme",
    "x-received-at": AT,
}


def message(
    body: bytes, headers: FieldTable, content_type: str | None = None, batch: str | None = None
) -> DeliveredMessage:
    properties = Basic.Properties(content_type=content_type, headers=headers, correlation_id=batch)
    return DeliveredMessage(
        delivery=Basic.Deliver("tag", 1, redelivered=False, exchange="", routing_key=""),
        header=ContentHeader(properties=properties, body_size=len(body)),
        body=body,
        channel=Mock(spec=AbstractChannel),
    )


def test_a_single_postback() -> None:
    letter = read_letter(message(b"{}", SINGLE, "application/json", "0123456789abcdef"))
    assert letter.arrivals == (ARRIVAL,)
    assert letter.batch_id == "0123456789abcdef"
    assert (letter.reason, letter.source, letter.received_at) == ("unknown-code", "acme", AT)
    assert not letter.batch


def test_a_batch_that_rabbitmq_put_there() -> None:
    body = envelope.encode([ARRIVAL, Arrival(AT + 5, "default", "", b"<x/>")])
    headers: FieldTable = {"x-first-death-reason": "delivery_limit"}
    letter = read_letter(message(body, headers, envelope.CONTENT_TYPE))
    assert letter.batch
    assert letter.batch_id == envelope.batch_id(body)
    assert (letter.reason, letter.source) == ("undeliverable", "acme,default")
    assert (letter.received_at, len(letter.arrivals)) == (AT, 2)
    assert "delivery_limit" in letter.error


def test_a_batch_that_a_worker_could_not_read_but_we_can() -> None:
    headers = SINGLE | {"x-source": "", "x-reason": "malformed"}
    body = envelope.encode([ARRIVAL])
    assert read_letter(message(body, headers, envelope.CONTENT_TYPE)).arrivals == (ARRIVAL,)


def test_neither() -> None:
    headers = SINGLE | {"x-source": "", "x-reason": "malformed"}
    letter = read_letter(message(b"\xc1", headers, envelope.CONTENT_TYPE))
    assert (letter.batch, letter.arrivals) == (False, ())
    stranger = read_letter(message(b"hello", {}))
    assert (stranger.reason, stranger.arrivals) == ("undeliverable", ())
    assert not stranger.batch_id


def test_nobody_smuggles_a_batch_in_by_its_content_type() -> None:
    """A POST may claim any Content-Type; its postback stays one postback of its own source."""
    body = envelope.encode([Arrival(1, "other", "", b"{}")])
    letter = read_letter(message(body, SINGLE, envelope.CONTENT_TYPE))
    assert not letter.batch
    assert [arrival.source for arrival in letter.arrivals] == ["acme"]


def test_the_id_does_not_change_when_a_letter_was_looked_at() -> None:
    once = read_letter(message(b"{}", SINGLE))
    again = read_letter(message(b"{}", SINGLE | {"x-delivery-count": 3}))
    other = read_letter(message(b"{} ", SINGLE))
    assert once.id == again.id != other.id
    assert len(once.id) == 12


def test_filters() -> None:
    single = read_letter(message(b"{}", SINGLE))
    batch = read_letter(message(envelope.encode([ARRIVAL]), {}, envelope.CONTENT_TYPE))
    assert Filter().takes(single)
    assert Filter(source="acme").takes(single)
    assert Filter(source="acme").takes(batch)
    assert not Filter(source="default").takes(batch)
    assert Filter(reason="undeliverable").takes(batch)
    assert not Filter(reason="undeliverable").takes(single)
    assert Filter(id=single.id).takes(single)
    assert not Filter(id=single.id).takes(batch)
    assert Filter(since=datetime.fromtimestamp(AT / 1e6 - 1, UTC)).takes(single)
    assert not Filter(since=datetime.fromtimestamp(AT / 1e6 + 1, UTC)).takes(single)
    assert not Filter(since=datetime.fromtimestamp(0, UTC)).takes(read_letter(message(b"", {})))
