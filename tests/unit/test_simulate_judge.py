"""The comparison of a message with record and events: no finding when right, each kind when not."""

from collections.abc import Iterable
from random import Random

import pytest

from ingest.simulate.eventlog import TrackEvents
from ingest.simulate.judge import Fault, Finding, judge
from ingest.simulate.ledger import Ledger
from ingest.simulate.lifecycles import Message, Messages, generate
from ingest.simulate.wording import word
from shared.postback.codes import Track
from shared.postback.event import event_of
from shared.postback.normalise import decode
from shared.postback.postback import NormalisedPostback
from shared.postback.record import Entry, Record


@pytest.fixture(scope="module")
def messages() -> Messages:
    return generate(1500, seed=11, run="test")


def corrected(messages: Messages) -> Message:
    return next(message for message in messages if message.lifecycle == "corrected")


def all_answered(messages: Messages) -> Ledger:
    ledger = Ledger(messages.postbacks)
    for number in range(messages.postbacks):
        ledger.enter(number, "200", 0.01)
    return ledger


def record_of(normalised_postbacks: Iterable[NormalisedPostback]) -> Record:
    postbacks = list(normalised_postbacks)
    entries = [
        Entry(normalised.track, normalised.rank, 1, normalised.postback) for normalised in postbacks
    ]
    return Record(postbacks[0].key, tuple(sorted(entries, key=lambda entry: entry.rank)))


def normalised_postbacks(message: Message) -> list[NormalisedPostback]:
    random = Random(0)
    return [decode("default", word(fields, "mixed", random).body) for fields in message.postbacks]


def events_of(record: Record, message: Message) -> dict[tuple[str, str], TrackEvents]:
    """The events of a record whose postbacks came one by one in the order of rank."""
    tracks: dict[tuple[str, str], TrackEvents] = {}
    for at, entry in enumerate(record.entries):
        if entry.rank.terminal:
            known = Record(record.key, record.entries[: at + 1])
            event = event_of(known, Track(entry.track))
            each = tracks.setdefault((message.id, entry.track), TrackEvents({}, set(), "", ""))
            each.ids[event.id] = 1
            each.outcomes.add(str(entry.postback.outcome))
            each.sequence, each.last_outcome = event.sequence, str(entry.postback.outcome)
    return tracks


def faults(
    message: Message,
    ledger: Ledger,
    record: Record | None,
    tracks: dict[tuple[str, str], TrackEvents],
) -> set[Fault]:
    return {finding.fault for finding in judge(message, ledger, record, tracks)}


def test_a_message_that_arrived_completely_has_no_findings(messages: Messages) -> None:
    ledger = all_answered(messages)
    for message in messages:
        record = record_of(normalised_postbacks(message))
        assert list(judge(message, ledger, record, events_of(record, message))) == []


def test_a_record_that_dropped_postbacks_is_wrong(messages: Messages) -> None:
    message = corrected(messages)
    record = record_of(normalised_postbacks(message))
    dropped = Record(record.key, record.entries, dropped=True)
    findings = list(judge(message, all_answered(messages), dropped, events_of(record, message)))
    assert findings == [Finding(Fault.WRONG, message.id, "the record dropped postbacks")]


def test_an_answered_postback_that_is_missing_is_lost(messages: Messages) -> None:
    ledger = all_answered(messages)
    for message in messages[:300]:
        postbacks = normalised_postbacks(message)
        for missing in range(len(postbacks)):
            rest = postbacks[:missing] + postbacks[missing + 1 :]
            record = record_of(rest) if rest else None
            tracks = events_of(record, message) if record else {}
            assert faults(message, ledger, record, tracks) == {Fault.LOST}


def test_a_postback_that_was_never_answered_may_be_in_the_state_or_not(messages: Messages) -> None:
    message = corrected(messages)
    ledger = Ledger(messages.postbacks)
    for at in range(2):
        ledger.enter(message.first + at, "200", 0.01)
    ledger.enter(message.first + 2, "timeout", 10.0)
    postbacks = normalised_postbacks(message)
    for present in (postbacks, postbacks[:2]):
        record = record_of(present)
        assert faults(message, ledger, record, events_of(record, message)) == set()


def test_a_postback_that_was_never_sent_is_unexpected(messages: Messages) -> None:
    message = corrected(messages)
    ledger = Ledger(messages.postbacks)
    ledger.enter(message.first, "200", 0.01)
    record = record_of(normalised_postbacks(message)[:2])
    assert Fault.UNEXPECTED in faults(message, ledger, record, {})


def test_a_postback_whose_content_changed_is_lost_and_unexpected(messages: Messages) -> None:
    message = corrected(messages)
    other = next(m for m in messages if m.lifecycle == "corrected" and m.id != message.id)
    record = record_of(normalised_postbacks(other))
    tracks = {(message.id, track): each for (_, track), each in events_of(record, other).items()}
    found = faults(message, all_answered(messages), record, tracks)
    assert {Fault.LOST, Fault.UNEXPECTED} <= found


def test_an_event_of_a_lost_postback_is_not_unexpected(messages: Messages) -> None:
    message = corrected(messages)
    tracks = events_of(record_of(normalised_postbacks(message)), message)
    assert faults(message, all_answered(messages), None, tracks) == {Fault.LOST}


def test_a_terminal_outcome_without_an_event_is_lost(messages: Messages) -> None:
    message = corrected(messages)
    record = record_of(normalised_postbacks(message))
    assert faults(message, all_answered(messages), record, {}) == {Fault.LOST}


def test_a_last_event_with_an_older_outcome_is_wrong(messages: Messages) -> None:
    message = corrected(messages)
    record = record_of(normalised_postbacks(message))
    tracks = events_of(record, message)
    tracks[message.id, "message"].last_outcome = "expired"
    assert faults(message, all_answered(messages), record, tracks) == {Fault.WRONG}


def test_an_event_with_an_outcome_that_was_never_sent_is_unexpected(messages: Messages) -> None:
    message = corrected(messages)
    record = record_of(normalised_postbacks(message))
    tracks = events_of(record, message)
    tracks[message.id, "message"].outcomes.add("rejected")
    assert faults(message, all_answered(messages), record, tracks) == {Fault.UNEXPECTED}


def test_a_second_event_id_is_unexpected(messages: Messages) -> None:
    message = corrected(messages)
    record = record_of(normalised_postbacks(message))
    tracks = events_of(record, message)
    tracks[message.id, "message"].ids |= {"another": 1}
    assert faults(message, all_answered(messages), record, tracks) == {Fault.UNEXPECTED}
