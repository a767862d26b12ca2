"""What is kept of the event log."""

import json

import pytest

from ingest.simulate.eventlog import EventLog
from shared.settings.settings import Settings


@pytest.fixture
def log() -> EventLog:
    return EventLog(Settings(), "test", "default", 0.0)


def event(outcome: str, sequence: str, *, name: str = "a", source: str = "default") -> bytes:
    return json.dumps(
        {
            "specversion": "1.0",
            "id": name,
            "type": f"mms.message.{outcome}",
            "source": f"/mms-postbacks/{source}",
            "subject": "test-0000001",
            "sequence": sequence,
            "data": {"outcome": outcome, "code": "N102"},
        }
    ).encode()


def test_the_highest_sequence_tells_what_stands_whatever_comes_last(log: EventLog) -> None:
    log.keep(event("delivered", "42", name="b"))
    log.keep(event("expired", "39", name="a"))
    told = log.told["test-0000001", "message"]
    assert told.last == "delivered"
    assert told.outcomes == {"delivered", "expired"}


def test_an_event_told_twice_is_counted_twice_under_one_id(log: EventLog) -> None:
    log.keep(event("delivered", "42"))
    log.keep(event("delivered", "42"))
    assert log.events == 2
    assert log.told["test-0000001", "message"].ids == {"a": 2}


def test_another_accounts_event_is_not_ours(log: EventLog) -> None:
    log.keep(event("delivered", "42", source="other"))
    assert log.told == {}


def test_what_is_no_event_is_kept_apart(log: EventLog) -> None:
    log.keep(b'{"subject": "test-0000001"}')
    assert len(log.unreadable) == 1


def test_a_type_that_contradicts_its_data_is_no_outcome_of_ours(log: EventLog) -> None:
    log.keep(event("delivered", "42").replace(b'"outcome": "delivered"', b'"outcome": "failed"'))
    assert log.told["test-0000001", "message"].outcomes == {"delivered (type only)"}


def test_a_postback_of_another_origin_is_kept_by_its_id_alone(log: EventLog) -> None:
    body = event("x", "").replace(b"mms.message.x", b"mms.passthrough.sms_mo")
    log.keep(body)
    assert log.passthrough == {"test-0000001"}
    assert (log.told, log.events, log.unreadable) == ({}, 0, [])
