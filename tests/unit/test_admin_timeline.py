"""The change that each postback of a record made, in the order of arrival."""

import json

from hypothesis import given
from hypothesis import strategies as st

from shared.postback.codes import Outcome, Track
from shared.postback.normalise import decode
from shared.postback.postback import Key, NormalisedPostback
from shared.postback.record import Entry, Record
from workers.admin.timeline import timeline

KEY = Key("message", "default", "T-1")


def normalised(
    code: str, status: str | None = None, timestamp: str | None = None
) -> NormalisedPostback:
    content = {"origin": "MMS_MT", "code": code, "tracking-id": "T-1"}
    content |= {"status": status} if status else {}
    content |= {"timestamp": timestamp} if timestamp else {}
    return decode("default", json.dumps(content).encode())


SENT = normalised("N101", "Message Sent", "2026-11-24T10:00:00Z")
FAILED = normalised("E102", "Message Failed", "2026-11-24T10:00:05Z")
DELIVERED = normalised("N102", "Delivered", "2026-11-24T10:00:09Z")
DELIVERED_AGAIN = normalised("N102", "Delivered", "2026-11-24T10:00:10Z")
DISCOVERED = normalised("N502", "Delivered", "2026-11-24T09:00:00Z")


def record(*arrived: NormalisedPostback) -> Record:
    entries = [Entry(f.track, f.rank, at, f.postback) for at, f in enumerate(arrived)]
    return Record(KEY, tuple(sorted(entries, key=lambda entry: entry.rank)))


def changes(*arrived: NormalisedPostback) -> list[str]:
    return [step.change for step in timeline(record(*arrived))]


def test_a_life_in_order() -> None:
    assert changes(SENT, FAILED, DELIVERED) == [
        "message: → sent",
        "message: sent → failed",
        "message: failed → delivered",
    ]


def test_a_late_postback_changes_nothing() -> None:
    assert changes(DELIVERED, SENT, FAILED) == [
        "message: → delivered",
        "no change (late)",
        "no change (late)",
    ]


def test_the_same_outcome_said_later() -> None:
    assert changes(DELIVERED, DELIVERED_AGAIN)[1] == "message: delivered, again"


def test_tracks_do_not_touch_each_other() -> None:
    assert changes(SENT, DISCOVERED, DELIVERED) == [
        "message: → sent",
        "discovery: → delivered",
        "message: sent → delivered",
    ]


@given(st.permutations([SENT, FAILED, DELIVERED, DELIVERED_AGAIN, DISCOVERED]))
def test_the_last_deciding_step_has_the_outcome_of_the_record(
    arrived: list[NormalisedPostback],
) -> None:
    arrived_record = record(*arrived)
    steps = timeline(arrived_record)
    assert [step.entry.received_at for step in steps] == list(range(len(arrived)))
    for track in (Track.MESSAGE, Track.DISCOVERY):
        mine = [step for step in steps if step.entry.track is track]
        outcomes: list[Outcome | None] = [None]
        for step in mine:
            assert step.before is outcomes[-1]
            outcomes.append(step.entry.postback.outcome if step.decided else step.before)
        assert outcomes[-1] is arrived_record.known(track).outcome
