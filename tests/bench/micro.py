"""Micro: nanoseconds of each pure step, compared with pydantic and the standard library.

It runs in a separate process with a Python that has pydantic, and prints JSON. To measure a change:

    .venv-bench/bin/python -m tests.bench.micro
"""

import json
import sys
import timeit
from collections.abc import Callable
from typing import Final
from xml.etree import ElementTree as ET

import pydantic

from shared.postback import envelope
from shared.postback.codes import Track
from shared.postback.dialects.parse import parse
from shared.postback.event import event_of
from shared.postback.normalise import decode, normalise
from shared.postback.postback import Rank
from shared.postback.record import entry_name, entry_value, read_record
from tests.bench import traffic

ROUNDS: Final = 7
SECONDS: Final = 0.05
"""The minimum duration of one round of one step."""


class Postback(pydantic.BaseModel):
    """The same fields as a model of pydantic."""

    model_config = pydantic.ConfigDict(populate_by_name=True)

    origin: str
    code: str
    sent_as: str | None = pydantic.Field(None, alias="sent-as")
    status: str | None = None
    status_details: str | None = pydantic.Field(None, alias="status-details")
    mms_id: str | None = pydantic.Field(None, alias="mms-id")
    from_: str | None = pydantic.Field(None, alias="from")
    to: str | None = None
    tracking_id: str | None = pydantic.Field(None, alias="tracking-id")
    operator_id: str | None = pydantic.Field(None, alias="operator-id")
    operator_name: str | None = pydantic.Field(None, alias="operator-name")
    timestamp: str | None = None
    handset: str | None = None
    client_reference: str | None = pydantic.Field(None, alias="client-reference")
    campaign_ref: str | None = pydantic.Field(None, alias="campaign-ref")
    aggregator_id: str | None = pydantic.Field(None, alias="aggregator-id")


def steps() -> dict[str, Callable[[], object]]:
    """The steps to measure, by name."""
    sent, body = traffic.body(0, "micro"), traffic.body(1, "micro")
    fields = parse(body)
    xml = "".join(f"<{name}>{text}</{name}>" for name, text in fields.items())
    xml_body = f"<postback>{xml}</postback>".encode()
    normalised_postbacks = [decode("default", each) for each in (sent, body)]
    normalised = normalised_postbacks[1]
    held = {
        entry_name(each).encode(): entry_value(1_790_000_000_000_000, each.postback)
        for each in normalised_postbacks
    }
    record = read_record(normalised.key, held)
    if record is None:
        raise AssertionError
    event = event_of(record, Track.MESSAGE)
    batch = list(traffic.arrivals(32, "micro", 0))
    packed = envelope.encode(batch)
    adapter = pydantic.TypeAdapter(Postback)
    model = adapter.validate_json(body)
    texts = {name: text for name, text in fields.items() if isinstance(text, str)}
    return {
        "JSON to fields": lambda: parse(body),
        "JSON: json.loads": lambda: json.loads(body),
        "JSON: pydantic": lambda: adapter.validate_json(body),
        "XML to fields": lambda: parse(xml_body),
        "XML: ElementTree": lambda: {each.tag: each.text for each in ET.fromstring(xml_body)},
        "fields to postback, identity and rank": lambda: normalise("default", dict(texts)),
        "JSON to postback, all of it": lambda: decode("default", body),
        "XML to postback, all of it": lambda: decode("default", xml_body),
        "rank taken apart": lambda: Rank.parse(str(normalised.rank)),
        "postback to Redis": lambda: (
            entry_name(normalised),
            entry_value(1_790_000_000_000_000, normalised.postback),
        ),
        "record from Redis, two postbacks": lambda: read_record(normalised.key, held),
        "record to event": lambda: event_of(record, Track.MESSAGE),
        "event to JSON": event.encode,
        "event: json.dumps of as many fields": lambda: json.dumps(texts).encode(),
        "event: pydantic, as many fields": lambda: adapter.dump_json(model),
        "envelope of 32, encoded": lambda: envelope.encode(batch),
        "envelope of 32, decoded": lambda: envelope.decode(packed),
    }


def time_ns(step: Callable[[], object]) -> list[float]:
    """Nanoseconds for one call, for each round."""
    timer = timeit.Timer(step)
    calls, took = timer.autorange()
    calls = max(1, int(calls * SECONDS / took))
    return [timer.timeit(calls) / calls * 1e9 for _ in range(ROUNDS)]


if __name__ == "__main__":
    json.dump({name: time_ns(step) for name, step in steps().items()}, sys.stdout)
