"""What the check keeps of the event log."""

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


def test_the_event_with_the_highest_sequence_has_the_last_outcome(log: EventLog) -> None:
    log.add(event("delivered", "42", name="b"))
    log.add(event("expired", "39", name="a"))
    seen = log.tracks["test-0000001", "message"]
    assert seen.last_outcome == "delivered"
    assert seen.outcomes == {"delivered", "expired"}


def test_a_duplicated_event_is_counted_twice_under_one_id(log: EventLog) -> None:
    log.add(event("delivered", "42"))
    log.add(event("delivered", "42"))
    assert log.events == 2
    assert log.tracks["test-0000001", "message"].ids == {"a": 2}


def test_an_event_of_another_source_is_ignored(log: EventLog) -> None:
    log.add(event("delivered", "42", source="other"))
    assert log.tracks == {}


def test_a_message_that_is_not_an_event_is_unreadable(log: EventLog) -> None:
    log.add(b'{"subject": "test-0000001"}')
    assert len(log.unreadable) == 1


def test_a_type_that_contradicts_its_data_is_marked(log: EventLog) -> None:
    log.add(event("delivered", "42").replace(b'"outcome": "delivered"', b'"outcome": "failed"'))
    assert log.tracks["test-0000001", "message"].outcomes == {"delivered (type only)"}


def test_only_the_id_of_a_passthrough_event_is_kept(log: EventLog) -> None:
    body = event("x", "").replace(b"mms.message.x", b"mms.passthrough.sms_mo")
    log.add(body)
    assert log.passthrough == {"test-0000001"}
    assert (log.tracks, log.events, log.unreadable) == ({}, 0, [])
