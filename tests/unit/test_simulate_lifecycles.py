"""The simulated traffic: reproducible, with all codes, and its outcomes agree with our ranks."""

from datetime import UTC, datetime
from itertools import combinations
from random import Random

import pytest

from ingest.simulate.lifecycles import Message, Messages, generate
from ingest.simulate.mix import LIFECYCLES
from ingest.simulate.wording import DIALECTS, MIXED, word
from shared.postback.codes import CODES, Track
from shared.postback.normalise import decode
from shared.postback.postback import NormalisedPostback

BEGAN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def messages() -> Messages:
    return generate(2000, seed=7, run="test", began=BEGAN)


def normalised_postbacks(
    message: Message, dialect: str = "json", seed: int = 0
) -> list[NormalisedPostback]:
    random = Random(seed)
    bodies = [word(fields, dialect, random).body for fields in message.postbacks]
    return [decode("default", body) for body in bodies]


def test_every_lifecycle_and_every_code_occurs(messages: Messages) -> None:
    assert {message.lifecycle for message in messages} == {each.name for each in LIFECYCLES}
    assert {step.code for message in messages for step in message.steps} == set(CODES)


def test_the_mix_is_realistic(messages: Messages) -> None:
    deciding = [message.deciding_steps(range(len(message.steps))) for message in messages]
    outcomes = [steps["message"].outcome for steps in deciding if "message" in steps]
    assert 0.65 < outcomes.count("delivered") / len(messages) < 0.75
    assert 0.07 < outcomes.count("sent") / len(messages) < 0.13


@pytest.mark.parametrize("dialect", [*DIALECTS, MIXED])
def test_a_postback_is_the_same_in_every_dialect(messages: Messages, dialect: str) -> None:
    for message in messages:
        assert normalised_postbacks(message, dialect, message.ordinal) == normalised_postbacks(
            message, "json"
        )


def test_all_postbacks_of_a_message_have_its_key(messages: Messages) -> None:
    for message in messages:
        assert {normalised.key for normalised in normalised_postbacks(message)} == {
            (message.kind, "default", message.id)
        }


def test_the_deciding_steps_agree_with_the_ranks(messages: Messages) -> None:
    for message in messages:
        postbacks = normalised_postbacks(message)
        positions = range(len(postbacks))
        for size in range(1, len(postbacks) + 1):
            for arrived in combinations(positions, size):
                by_rank = sorted(
                    (postbacks[at] for at in arrived), key=lambda normalised: normalised.rank
                )
                tops = {normalised.track: normalised for normalised in by_rank}
                deciding = message.deciding_steps(arrived)
                assert {track: step.outcome for track, step in deciding.items()} == {
                    track: top.postback.outcome for track, top in tops.items()
                }, message.lifecycle
                assert all(
                    deciding[track].terminal == tops[Track(track)].rank.terminal
                    for track in deciding
                )


def test_postbacks_of_a_message_are_distinct(messages: Messages) -> None:
    for message in messages:
        assert len(
            {normalised.rank.identity for normalised in normalised_postbacks(message)}
        ) == len(message.steps)


def test_the_same_seed_gives_the_same_mix_with_other_ids() -> None:
    one, other = generate(300, seed=3, began=BEGAN), generate(300, seed=3, began=BEGAN)
    assert [message.lifecycle for message in one] == [message.lifecycle for message in other]
    assert {message.id for message in one}.isdisjoint(message.id for message in other)
    assert list(generate(300, seed=3, run=one.run, began=BEGAN)) == list(one)


def test_another_seed_gives_another_mix() -> None:
    one, other = generate(300, seed=3), generate(300, seed=4)
    assert [message.lifecycle for message in one] != [message.lifecycle for message in other]


def test_a_message_is_found_by_the_number_of_a_postback(messages: Messages) -> None:
    numbers = [
        (message.ordinal, at, message.first + at)
        for message in messages
        for at in range(len(message.steps))
    ]
    assert [number for _, _, number in numbers] == list(range(messages.postbacks))
    for ordinal, at, number in numbers[:500]:
        assert messages.locate(number) == (messages[ordinal], at)
        assert number in messages.numbers(ordinal)


def test_a_message_is_found_by_its_id(messages: Messages) -> None:
    assert all(messages.find(message.kind, message.id) == message for message in messages)
    assert messages.find("message", "other-0000001") is None
    assert messages.find("message", "test-0002000") is None
    assert messages.find("template", messages[0].id) is None


def test_a_late_failure_is_sent_after_the_delivery_and_does_not_outrank_it(
    messages: Messages,
) -> None:
    message = next(each for each in messages if each.lifecycle == "contradicted")
    assert [message.steps[at].outcome for at in message.in_time()] == [
        "sent",
        "delivered",
        "failed",
    ]
    assert message.deciding_steps(range(3))["message"].outcome == "delivered"


def test_a_run_name_with_a_pattern_character_is_refused() -> None:
    with pytest.raises(ValueError, match="run"):
        generate(1, run="a*")
