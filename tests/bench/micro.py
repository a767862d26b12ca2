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

from shared.postback.dialects.parse import parse
from tests.costs.pure import json_body, pure_steps, xml_body

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
    """Our steps, each followed by its alternatives."""
    body, xml = json_body(), xml_body()
    texts = {name: text for name, text in parse(body).items() if isinstance(text, str)}
    adapter = pydantic.TypeAdapter(Postback)
    model = adapter.validate_json(body)
    alternatives: dict[str, dict[str, Callable[[], object]]] = {
        "JSON to fields": {
            "JSON: json.loads": lambda: json.loads(body),
            "JSON: pydantic": lambda: adapter.validate_json(body),
        },
        "XML to fields": {
            "XML: ElementTree": lambda: {each.tag: each.text for each in ET.fromstring(xml)},
        },
        "event to JSON": {
            "event: json.dumps of as many fields": lambda: json.dumps(texts).encode(),
            "event: pydantic, as many fields": lambda: adapter.dump_json(model),
        },
    }
    found: dict[str, Callable[[], object]] = {}
    for name, step in pure_steps().items():
        found[name] = step.call
        found |= alternatives.get(name, {})
    return found


def time_ns(step: Callable[[], object]) -> list[float]:
    """Nanoseconds for one call, for each round."""
    timer = timeit.Timer(step)
    calls, took = timer.autorange()
    calls = max(1, int(calls * SECONDS / took))
    return [timer.timeit(calls) / calls * 1e9 for _ in range(ROUNDS)]


if __name__ == "__main__":
    json.dump({name: time_ns(step) for name, step in steps().items()}, sys.stdout)
