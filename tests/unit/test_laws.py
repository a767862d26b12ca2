"""The laws of the record: order and repetition do not matter, and the last event tells the end."""

from collections.abc import Iterable, Sequence
from random import Random
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from shared.postback.codes import Outcome, Track
from shared.postback.event import Event, event_of
from shared.postback.postback import Key, NormalisedPostback
from shared.postback.record import Record
from tests.support.model import NOTIFY_ALWAYS, NOTIFY_NEVER, NOTIFY_NEW, Merging, Model
from tests.support.strategies import normalised_postbacks

KEY = Key("message", "acme", "T1")
SMALL = 3
"""Postbacks to keep, few enough for Hypothesis to go beyond."""

merging = st.builds(Merging, normalised_postbacks(), st.integers(1, 9))
shuffles = st.randoms(use_true_random=False)


def shuffled(items: Iterable[Merging], random: Random) -> list[Merging]:
    order = list(items)
    random.shuffle(order)
    return order


def split(items: Sequence[Merging], random: Random) -> list[Sequence[Merging]]:
    """The items in batches, some of them empty."""
    cuts = sorted(random.randint(0, len(items)) for _ in range(random.randint(0, 4)))
    return [items[start:end] for start, end in zip([0, *cuts], [*cuts, len(items)], strict=True)]


def record(batches: Iterable[Sequence[Merging]], keep: int = 64) -> Record:
    model = Model(KEY, keep)
    for batch in batches:
        model.merge(batch)
    return model.record()


def distinct(items: Iterable[Merging]) -> dict[tuple[Track, str], Merging]:
    """One for each identity: the one that arrived first."""
    first: dict[tuple[Track, str], Merging] = {}
    for each in sorted(items, key=lambda item: item.received_at):
        first.setdefault((each.normalised.track, str(each.normalised.rank)), each)
    return first


@given(st.lists(merging, min_size=1, max_size=20), st.lists(st.integers(0, 19)), shuffles)
def test_any_order_duplication_and_split_gives_the_same_record(
    items: list[Merging], again: list[int], random: Random
) -> None:
    once = record([items])
    repeated = items + [items[at % len(items)] for at in again]
    assert record(split(shuffled(repeated, random), random)) == once


@given(st.lists(merging, max_size=20))
def test_a_record_is_the_set_of_its_postbacks_each_at_its_first_arrival(
    items: list[Merging],
) -> None:
    held = [
        (str(entry.rank), entry.track, entry.received_at, entry.postback)
        for entry in record([items]).entries
    ]
    assert held == sorted(
        (rank, track, each.received_at, each.normalised.postback)
        for (track, rank), each in distinct(items).items()
    )


@given(st.lists(merging, min_size=SMALL, max_size=20), shuffles)
def test_beyond_the_limit_order_and_split_do_not_matter_either(
    items: list[Merging], random: Random
) -> None:
    different = list(distinct(items).values())
    once = record([different], SMALL)
    assert record(split(shuffled(different, random), random), SMALL) == once
    assert once.dropped == (len(different) > SMALL)


@given(st.lists(merging, min_size=SMALL, max_size=20), st.lists(st.integers(0, 19)), shuffles)
def test_beyond_the_limit_repetition_changes_nothing_either(
    items: list[Merging], again: list[int], random: Random
) -> None:
    # Of a dropped postback the first time of arrival is dropped with it.
    different = [each._replace(received_at=1) for each in distinct(items).values()]
    repeated = different + [different[at % len(different)] for at in again]
    kept = record(split(shuffled(repeated, random), random), SMALL)
    assert kept == record([different], SMALL)


@given(st.lists(merging, min_size=1, max_size=20))
def test_what_is_kept_is_what_decides_each_track_and_the_highest_of_the_rest(
    items: list[Merging],
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


@given(st.lists(merging, min_size=1, max_size=12), merging, shuffles)
def test_nothing_undelivers_a_handset(items: list[Merging], more: Merging, random: Random) -> None:
    before = record([items], SMALL)
    after = record([items, shuffled([more], random)], SMALL)
    for track in before.tracks():
        if before.known(track).outcome is Outcome.DELIVERED:
            assert after.known(track).outcome is Outcome.DELIVERED


@given(st.lists(merging, min_size=1, max_size=12), shuffles)
def test_the_record_grows_with_every_new_postback_and_with_nothing_else(
    items: list[Merging], random: Random
) -> None:
    model = Model(KEY)
    for batch in split(shuffled(items, random), random):
        before = model.record()
        letters, _ = model.merge(batch)
        after = model.record()
        grown = len(after.entries) - len(before.entries)
        assert grown == letters.lower().count("n")
        assert ("n" in letters.lower()) == (
            {entry.rank for entry in after.entries} != {entry.rank for entry in before.entries}
        )


# Events: workers that take batches in any order, and die between the merge and the telling.


class Batch(NamedTuple):
    items: Sequence[Merging]
    deaths: int


def notify(normalised: NormalisedPostback, *, redelivered: bool) -> int:
    if not normalised.rank.terminal:
        return NOTIFY_NEVER
    return NOTIFY_ALWAYS if redelivered else NOTIFY_NEW


def told_of(model: Model, items: Sequence[Merging], *, redelivered: bool) -> list[Event]:
    """What a worker that has this batch tells of it."""
    batch = [
        each._replace(notify=notify(each.normalised, redelivered=redelivered)) for each in items
    ]
    letters, known = model.merge(batch)
    if known is None:
        return []
    verdicts_and_postbacks = zip(letters, (each.normalised for each in batch), strict=True)
    tracks = {
        normalised.track
        for letter, normalised in verdicts_and_postbacks
        if normalised.rank.terminal and (letter in "NS" or (letter == "D" and redelivered))
    }
    return [event_of(known, track) for track in tracks]


def run(batches: Sequence[Batch], random: Random, keep: int) -> tuple[Model, list[Event]]:
    """All batches to their end: each one is taken once more than its takers die."""
    model = Model(KEY, keep)
    told: list[Event] = []
    waiting = [(batch.items, batch.deaths, False) for batch in batches]
    while waiting:
        items, deaths, redelivered = waiting.pop(random.randrange(len(waiting)))
        events = told_of(model, items, redelivered=redelivered)
        if deaths:
            told += events[: random.randint(0, len(events))]
            waiting.append((items, deaths - 1, True))
        else:
            told += events
    return model, told


batches_of = st.lists(
    st.builds(Batch, st.lists(merging, max_size=5), st.integers(0, 2)), min_size=1, max_size=6
)


@given(batches_of, shuffles, st.sampled_from([SMALL, 64]))
def test_of_a_track_the_event_with_the_highest_sequence_tells_the_final_outcome(
    batches: list[Batch], random: Random, keep: int
) -> None:
    model, told = run(batches, random, keep)
    known = model.record()
    for track in known.tracks():
        final = known.of(track)[0]
        events = [each for each in told if each.type.startswith(f"mms.{track}.")]
        assert bool(events) == final.rank.terminal
        random.shuffle(events)
        if events:
            last = max(events, key=lambda event: event.sequence)
            assert last.data.outcome == final.postback.outcome
            assert last.id == event_of(known, track).id


@given(batches_of, shuffles)
def test_only_terminal_outcomes_are_told(batches: list[Batch], random: Random) -> None:
    _, told = run(batches, random, 64)
    assert all(each.data.completed_at is not None for each in told)
    assert {each.data.outcome for each in told} <= set(Outcome) - {
        Outcome.SENT,
        Outcome.ACCEPTED,
        Outcome.DEFERRED,
    }


@given(st.lists(merging, min_size=1, max_size=10))
def test_the_same_change_told_again_has_the_same_id(items: list[Merging]) -> None:
    model = Model(KEY)
    first = told_of(model, items, redelivered=False)
    again = told_of(model, items, redelivered=True)
    assert {each.id for each in first} == {each.id for each in again}
    assert {each.encode() for each in first} == {each.encode() for each in again}


@given(st.lists(merging, min_size=1, max_size=10), shuffles)
def test_a_plain_duplicate_tells_nothing(items: list[Merging], random: Random) -> None:
    model = Model(KEY)
    model.merge(items)
    later = [each._replace(received_at=each.received_at + 10**12) for each in items]
    for batch in split(shuffled(later, random), random):
        assert told_of(model, batch, redelivered=False) == []


@given(st.lists(merging, min_size=1, max_size=9, unique_by=lambda each: each.received_at))
def test_each_change_of_what_decides_is_told_once(items: list[Merging]) -> None:
    model = Model(KEY)
    told: list[Event] = []
    decided: list[tuple[Track, str]] = []
    for each in items:
        before = set(model.record().entries)
        told += told_of(model, [each], redelivered=False)
        top = model.record().of(each.normalised.track)[0]
        if top.rank.terminal and top.rank not in {entry.rank for entry in before}:
            decided.append((top.track, top.rank.identity))
    assert len(told) == len(decided)
    assert len({event.id for event in told}) == len(set(decided))
