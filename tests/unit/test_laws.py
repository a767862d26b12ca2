"""The laws of the record: order and repetition do not matter, and the last event is right."""

from collections.abc import Iterable, Sequence
from random import Random
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from shared.postback.codes import Outcome, Track
from shared.postback.event import Event, event_of
from shared.postback.postback import Key
from shared.postback.record import Record
from tests.support.model import Model, received
from tests.support.strategies import normalised_postbacks
from workers.verdicts import Received, Verdict, due_events

KEY = Key("message", "acme", "T1")
SMALL = 3
"""Postbacks to keep, so few that Hypothesis exceeds it."""

postbacks = st.builds(received, normalised_postbacks(), st.integers(1, 9))
shuffles = st.randoms(use_true_random=False)


def shuffled(items: Iterable[Received], random: Random) -> list[Received]:
    order = list(items)
    random.shuffle(order)
    return order


def split(items: Sequence[Received], random: Random) -> list[Sequence[Received]]:
    """The items in batches, some of them empty."""
    cuts = sorted(random.randint(0, len(items)) for _ in range(random.randint(0, 4)))
    return [items[start:end] for start, end in zip([0, *cuts], [*cuts, len(items)], strict=True)]


def record(batches: Iterable[Sequence[Received]], keep: int = 64) -> Record:
    model = Model(KEY, keep)
    for batch in batches:
        model.merge(batch)
    return model.record()


def distinct(items: Iterable[Received]) -> dict[tuple[Track, str], Received]:
    """One for each identity: the one that arrived first."""
    first: dict[tuple[Track, str], Received] = {}
    for each in sorted(items, key=lambda item: item.arrival.received_at):
        first.setdefault((each.normalised.track, str(each.normalised.rank)), each)
    return first


@given(st.lists(postbacks, min_size=1, max_size=20), st.lists(st.integers(0, 19)), shuffles)
def test_any_order_duplication_and_split_gives_the_same_record(
    items: list[Received], again: list[int], random: Random
) -> None:
    once = record([items])
    repeated = items + [items[at % len(items)] for at in again]
    assert record(split(shuffled(repeated, random), random)) == once


@given(st.lists(postbacks, max_size=20))
def test_a_record_is_the_set_of_its_postbacks_each_at_its_first_arrival(
    items: list[Received],
) -> None:
    held = [
        (str(entry.rank), entry.track, entry.received_at, entry.postback)
        for entry in record([items]).entries
    ]
    assert held == sorted(
        (rank, track, each.arrival.received_at, each.normalised.postback)
        for (track, rank), each in distinct(items).items()
    )


@given(st.lists(postbacks, min_size=SMALL, max_size=20), shuffles)
def test_beyond_the_limit_order_and_split_do_not_matter_either(
    items: list[Received], random: Random
) -> None:
    different = list(distinct(items).values())
    once = record([different], SMALL)
    assert record(split(shuffled(different, random), random), SMALL) == once
    assert once.dropped == (len(different) > SMALL)


@given(st.lists(postbacks, min_size=SMALL, max_size=20), st.lists(st.integers(0, 19)), shuffles)
def test_beyond_the_limit_repetition_changes_nothing_either(
    items: list[Received], again: list[int], random: Random
) -> None:
    # The first time of arrival of a dropped postback is dropped with it.
    different = [received(each.normalised, 1) for each in distinct(items).values()]
    repeated = different + [different[at % len(different)] for at in again]
    kept = record(split(shuffled(repeated, random), random), SMALL)
    assert kept == record([different], SMALL)


@given(st.lists(postbacks, min_size=1, max_size=20))
def test_what_is_kept_is_what_decides_each_track_and_the_highest_of_the_rest(
    items: list[Received],
) -> None:
    names = sorted((rank, track) for track, rank in distinct(items))
    tops = {max(name for name in names if name[1] is track) for _, track in names}
    rest = [name for name in names if name not in tops]
    space = SMALL - len(tops)
    kept = record([list(distinct(items).values())], SMALL)
    assert [(str(entry.rank), entry.track) for entry in kept.entries] == sorted(
        tops | set(rest[max(0, len(rest) - space) :])
    )
    assert kept.dropped == (len(names) > SMALL)


@given(st.lists(postbacks, min_size=1, max_size=12), postbacks, shuffles)
def test_a_delivered_message_stays_delivered(
    items: list[Received], more: Received, random: Random
) -> None:
    before = record([items], SMALL)
    after = record([items, shuffled([more], random)], SMALL)
    for track in before.tracks():
        if before.known(track).outcome is Outcome.DELIVERED:
            assert after.known(track).outcome is Outcome.DELIVERED


@given(st.lists(postbacks, min_size=1, max_size=12), shuffles)
def test_the_record_grows_with_every_new_postback_and_with_nothing_else(
    items: list[Received], random: Random
) -> None:
    model = Model(KEY)
    for batch in split(shuffled(items, random), random):
        before = model.record()
        merged = model.merge(batch)
        after = model.record()
        assert len(after.entries) - len(before.entries) == len(merged.new())
        assert (Verdict.NEW in merged.verdicts) == (
            {entry.rank for entry in after.entries} != {entry.rank for entry in before.entries}
        )


# Events: workers take batches in any order, and die between the merge and the publish.


class Batch(NamedTuple):
    items: Sequence[Received]
    deaths: int


def due(model: Model, items: Sequence[Received], *, redelivered: bool) -> list[Event]:
    """The events that a worker publishes when it has merged this batch."""
    batch = [each._replace(redelivered=redelivered) for each in items]
    return [event for event, _ in due_events(model.merge(batch))]


def run(batches: Sequence[Batch], random: Random, keep: int) -> tuple[Model, list[Event]]:
    """Process all batches: each is redelivered once for each worker that dies with it."""
    model = Model(KEY, keep)
    published: list[Event] = []
    waiting = [(batch.items, batch.deaths, False) for batch in batches]
    while waiting:
        items, deaths, redelivered = waiting.pop(random.randrange(len(waiting)))
        events = due(model, items, redelivered=redelivered)
        if deaths:
            published += events[: random.randint(0, len(events))]
            waiting.append((items, deaths - 1, True))
        else:
            published += events
    return model, published


batches_of = st.lists(
    st.builds(Batch, st.lists(postbacks, max_size=5), st.integers(0, 2)), min_size=1, max_size=6
)


@given(batches_of, shuffles, st.sampled_from([SMALL, 64]))
def test_the_event_with_the_highest_sequence_has_the_final_outcome_of_its_track(
    batches: list[Batch], random: Random, keep: int
) -> None:
    model, published = run(batches, random, keep)
    known = model.record()
    for track in known.tracks():
        final = known.of(track)[0]
        events = [each for each in published if each.type.startswith(f"mms.{track}.")]
        assert bool(events) == final.rank.terminal
        random.shuffle(events)
        if events:
            last = max(events, key=lambda event: event.sequence)
            assert last.data.outcome == final.postback.outcome
            assert last.id == event_of(known, track).id


@given(batches_of, shuffles)
def test_only_terminal_outcomes_are_published(batches: list[Batch], random: Random) -> None:
    _, published = run(batches, random, 64)
    assert all(each.data.completed_at is not None for each in published)
    assert {each.data.outcome for each in published} <= set(Outcome) - {
        Outcome.SENT,
        Outcome.ACCEPTED,
        Outcome.DEFERRED,
    }


@given(st.lists(postbacks, min_size=1, max_size=10))
def test_the_same_change_published_again_has_the_same_id(items: list[Received]) -> None:
    model = Model(KEY)
    first = due(model, items, redelivered=False)
    again = due(model, items, redelivered=True)
    assert {each.id for each in first} == {each.id for each in again}
    assert {each.encode() for each in first} == {each.encode() for each in again}


@given(st.lists(postbacks, min_size=1, max_size=10), shuffles)
def test_a_plain_duplicate_publishes_nothing(items: list[Received], random: Random) -> None:
    model = Model(KEY)
    model.merge(items)
    later = [received(each.normalised, each.arrival.received_at + 10**12) for each in items]
    for batch in split(shuffled(later, random), random):
        assert due(model, batch, redelivered=False) == []


@given(st.lists(postbacks, min_size=1, max_size=9, unique_by=lambda each: each.arrival.received_at))
def test_each_change_of_an_outcome_is_published_once(items: list[Received]) -> None:
    model = Model(KEY)
    published: list[Event] = []
    decided: list[tuple[Track, str]] = []
    for each in items:
        before = set(model.record().entries)
        published += due(model, [each], redelivered=False)
        top = model.record().of(each.normalised.track)[0]
        if top.rank.terminal and top.rank not in {entry.rank for entry in before}:
            decided.append((top.track, top.rank.identity))
    assert len(published) == len(decided)
    assert len({event.id for event in published}) == len(set(decided))
