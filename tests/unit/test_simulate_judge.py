"""The judge: content with what should be, and names each way in which it can be otherwise."""

from collections.abc import Iterable
from random import Random

import pytest

from ingest.simulate.eventlog import Told
from ingest.simulate.judge import Fault, judge
from ingest.simulate.ledger import Ledger
from ingest.simulate.lifecycles import Message, Messages, generate
from ingest.simulate.wording import word
from shared.postback.codes import Track
from shared.postback.event import event_of
from shared.postback.normalise import NormalisedPostback, decode
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
    filed = list(normalised_postbacks)
    entries = [
        Entry(normalised.track, normalised.rank, 1, normalised.postback) for normalised in filed
    ]
    return Record(filed[0].key, tuple(sorted(entries, key=lambda entry: entry.rank)))


def normalised_postbacks(message: Message) -> list[NormalisedPostback]:
    random = Random(0)
    return [decode("default", word(fields, "mixed", random).body) for fields in message.postbacks]


def told_of(record: Record, message: Message) -> dict[tuple[str, str], Told]:
    """The events of a record whose postbacks came one by one in the order of rank."""
    told: dict[tuple[str, str], Told] = {}
    for at, entry in enumerate(record.entries):
        if entry.rank.terminal:
            known = Record(record.key, record.entries[: at + 1])
            event = event_of(known, Track(entry.track))
            each = told.setdefault((message.id, entry.track), Told({}, set(), "", ""))
            each.ids[event.id] = 1
            each.outcomes.add(str(entry.postback.outcome))
            each.sequence, each.last = event.sequence, str(entry.postback.outcome)
    return told


def faults(
    message: Message,
    ledger: Ledger,
    record: Record | None,
    told: dict[tuple[str, str], Told],
) -> set[Fault]:
    return {finding.fault for finding in judge(message, ledger, record, told)}


def test_it_is_content_with_every_message_that_arrived_whole(messages: Messages) -> None:
    ledger = all_answered(messages)
    for message in messages:
        record = record_of(normalised_postbacks(message))
        assert list(judge(message, ledger, record, told_of(record, message))) == []


def test_an_answered_postback_that_is_missing_is_lost(messages: Messages) -> None:
    ledger = all_answered(messages)
    for message in messages[:300]:
        filed = normalised_postbacks(message)
        for missing in range(len(filed)):
            rest = filed[:missing] + filed[missing + 1 :]
            record = record_of(rest) if rest else None
            told = told_of(record, message) if record else {}
            assert faults(message, ledger, record, told) == {Fault.LOST}


def test_a_postback_never_answered_may_be_there_or_not(messages: Messages) -> None:
    message = corrected(messages)
    ledger = Ledger(messages.postbacks)
    for at in range(2):
        ledger.enter(message.first + at, "200", 0.01)
    ledger.enter(message.first + 2, "timeout", 10.0)
    filed = normalised_postbacks(message)
    for present in (filed, filed[:2]):
        record = record_of(present)
        assert faults(message, ledger, record, told_of(record, message)) == set()


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
    told = {(message.id, track): each for (_, track), each in told_of(record, other).items()}
    found = faults(message, all_answered(messages), record, told)
    assert {Fault.LOST, Fault.UNEXPECTED} <= found


def test_an_event_for_what_the_state_has_lost_is_not_held_against_it(messages: Messages) -> None:
    message = corrected(messages)
    told = told_of(record_of(normalised_postbacks(message)), message)
    assert faults(message, all_answered(messages), None, told) == {Fault.LOST}


def test_a_decided_fate_without_its_event_is_lost(messages: Messages) -> None:
    message = corrected(messages)
    record = record_of(normalised_postbacks(message))
    assert faults(message, all_answered(messages), record, {}) == {Fault.LOST}


def test_a_last_event_with_an_older_fate_is_wrong(messages: Messages) -> None:
    message = corrected(messages)
    record = record_of(normalised_postbacks(message))
    told = told_of(record, message)
    told[message.id, "message"].last = "expired"
    assert faults(message, all_answered(messages), record, told) == {Fault.WRONG}


def test_an_event_of_an_outcome_that_nobody_sent_is_unexpected(messages: Messages) -> None:
    message = corrected(messages)
    record = record_of(normalised_postbacks(message))
    told = told_of(record, message)
    told[message.id, "message"].outcomes.add("rejected")
    assert faults(message, all_answered(messages), record, told) == {Fault.UNEXPECTED}


def test_an_event_id_that_is_not_stable_is_unexpected(messages: Messages) -> None:
    message = corrected(messages)
    record = record_of(normalised_postbacks(message))
    told = told_of(record, message)
    told[message.id, "message"].ids |= {"another": 1}
    assert faults(message, all_answered(messages), record, told) == {Fault.UNEXPECTED}
