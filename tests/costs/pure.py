"""The pure steps: text and bytes in, structs and bytes out. The benchmark times the same ones."""

from collections.abc import Callable
from typing import Final, NamedTuple

from shared.postback import envelope
from shared.postback.codes import Track
from shared.postback.dialects.parse import parse
from shared.postback.event import event_of
from shared.postback.normalise import decode, normalise
from shared.postback.postback import Rank
from shared.postback.record import Record
from shared.postback.stored import format_2, read_record
from tests.bench import traffic
from tests.support.hashes import as_hash
from workers.verdicts import Received

BATCH: Final = 32
"""Postbacks in a batch or a window."""

RECEIVED_AT: Final = 1_790_000_000_000_000


class Step(NamedTuple):
    """A step of a postback's way.

    Attributes:
        call: does it once, and leaves everything as it was.
        postbacks: how many one call is for.
    """

    call: Callable[[], object]
    postbacks: int = 1


def json_body() -> bytes:
    """A postback with all usual fields."""
    return traffic.body(1, "costs")


def xml_body() -> bytes:
    """The same postback in XML."""
    fields = parse(json_body())
    xml = "".join(f"<{name}>{text}</{name}>" for name, text in fields.items())
    return f"<postback>{xml}</postback>".encode()


def received(number: int) -> Received:
    """Postback `number` of the traffic, decoded."""
    body = traffic.body(number, "costs")
    return Received(traffic.arrival(body, RECEIVED_AT), decode("default", body), redelivered=False)


def held(message: int) -> dict[bytes, bytes]:
    """The hash in Redis of a message with two postbacks."""
    both = [received(number).normalised for number in (message * 2, message * 2 + 1)]
    return as_hash(both, RECEIVED_AT)


def finished_record(message: int) -> Record:
    """The record of a message with two postbacks.

    Raises:
        AssertionError: it cannot be read.
    """
    record = read_record(received(message * 2).normalised.key, held(message))
    if record is None:
        raise AssertionError
    return record


def pure_steps() -> dict[str, Step]:
    """The steps by name."""
    body, xml = json_body(), xml_body()
    texts = {name: text for name, text in parse(body).items() if isinstance(text, str)}
    normalised = received(1).normalised
    rank = str(normalised.rank)
    in_redis, record = held(0), finished_record(0)
    event = event_of(record, Track.MESSAGE)
    batch = list(traffic.arrivals(BATCH, "costs", RECEIVED_AT))
    packed = envelope.encode(batch)
    return {
        "JSON to fields": Step(lambda: parse(body)),
        "XML to fields": Step(lambda: parse(xml)),
        "fields to postback, identity and rank": Step(lambda: normalise("default", dict(texts))),
        "JSON to postback, all of it": Step(lambda: decode("default", body)),
        "XML to postback, all of it": Step(lambda: decode("default", xml)),
        "rank taken apart": Step(lambda: Rank.parse(rank)),
        "postback to Redis": Step(lambda: format_2(RECEIVED_AT, normalised)),
        "record from Redis, two postbacks": Step(lambda: read_record(normalised.key, in_redis)),
        "record to event": Step(lambda: event_of(record, Track.MESSAGE)),
        "event to JSON": Step(event.encode),
        "envelope of 32, encoded": Step(lambda: envelope.encode(batch), BATCH),
        "envelope of 32, decoded": Step(lambda: envelope.decode(packed), BATCH),
    }
