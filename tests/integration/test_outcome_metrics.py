"""Outcomes minus corrections is the number of messages that have each outcome now."""

import json
import random
from collections import Counter

import pytest
from prometheus_client import REGISTRY

from shared.postback import envelope
from shared.postback.codes import Track
from shared.postback.envelope import Arrival
from shared.postback.postback import Key
from shared.settings.settings import Settings
from workers.consumer import Delivery
from workers.pipeline import process_window
from workers.store import Store

MESSAGES = [f"B-{number}" for number in range(30)]
REPORTS = [
    ("N101", "Sent"),
    ("N102", "Delivered"),
    ("N102", "Expired"),
    ("N102", "Rejected"),
    ("E102", "Failed"),
    ("N103", ""),
]
OutcomeCounts = Counter[tuple[str, str]]


def present_outcomes() -> OutcomeCounts:
    """Outcomes minus corrections, by operator and outcome."""
    counts: OutcomeCounts = Counter()
    for metric in REGISTRY.collect():
        sign = {"mms_outcomes": 1, "mms_outcomes_corrected": -1}.get(metric.name, 0)
        for sample in metric.samples:
            if sign and sample.name.endswith("_total") and sample.labels["track"] == "message":
                counts[sample.labels["operator"], sample.labels["outcome"]] += sign * int(
                    sample.value
                )
    return counts


def deliveries() -> int:
    """The number of counted delivery times."""
    return sum(
        int(sample.value)
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "mms_delivery_seconds_count"
    )


def arrival(dice: random.Random, number: int) -> Arrival:
    code, status = dice.choice(REPORTS)
    content = {
        "origin": "MMS_MT",
        "code": code,
        "status": status,
        "tracking-id": dice.choice(MESSAGES),
        "operator-id": dice.choice(["31002", "31003", "0001470", ""]),
        "timestamp": f"2026-11-24T10:00:{dice.randrange(60):02}Z",
    }
    return Arrival(number, "default", "", json.dumps(content).encode())


@pytest.mark.parametrize("seed", range(5))
async def test_outcomes_minus_corrections_is_the_present_number(
    settings: Settings, seed: int
) -> None:
    """Also with duplicates, redeliveries, and windows processed again after a failed publish."""
    dice = random.Random(seed)
    before, times = present_outcomes(), deliveries()
    arrivals = [arrival(dice, number) for number in range(1, 400)]
    store = Store(settings)
    for start in range(0, len(arrivals), 40):
        batch = arrivals[start : start + 40] + dice.sample(arrivals[: start + 40], 10)
        body = envelope.encode(batch)
        for redelivered in (False, True) if dice.random() < 0.5 else (False,):
            await process_window(store, [Delivery(1, envelope.CONTENT_TYPE, body, redelivered)])
    in_redis: OutcomeCounts = Counter()
    delivered = 0
    for message in MESSAGES:
        record = await store.record(Key("message", "default", message))
        assert record is not None
        top = record.of(Track.MESSAGE)[0]
        if top.rank.terminal:
            in_redis[top.postback.operator_id or "unknown", top.postback.outcome] += 1
            delivered += top.postback.outcome == "delivered"
    await store.aclose()
    change = present_outcomes()
    change.subtract(before)
    assert {place: count for place, count in change.items() if count} == in_redis
    assert 0 < deliveries() - times <= delivered
