"""The merge in Redis against its model in Python, and against the laws themselves."""

import asyncio
import random

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from deploy.local.servers import Redis
from shared.postback import record
from shared.postback.codes import Track
from shared.postback.envelope import Arrival
from shared.postback.normalise import decode
from shared.postback.postback import NormalisedPostback
from shared.postback.record import Record
from shared.settings.settings import Settings
from tests.support import strategies
from tests.support.model import NOTIFY_ALWAYS, NOTIFY_NEVER, NOTIFY_NEW, Merging, Model
from workers.store import Merged, Received, Store

KEEPS = st.sampled_from([3, 5, 64])


def received(merging: Merging) -> Received:
    return Received(
        Arrival(merging.received_at, "default", "", b""),
        merging.normalised,
        redelivered=merging.notify == NOTIFY_ALWAYS,
    )


def merging(normalised: NormalisedPostback, received_at: int, *, redelivered: bool) -> Merging:
    """As the pipeline wishes it: only what is terminal is ever told of."""
    notify = NOTIFY_ALWAYS if redelivered else NOTIFY_NEW
    return Merging(normalised, received_at, notify if normalised.rank.terminal else NOTIFY_NEVER)


@pytest.fixture(scope="module")
def url(redis_server: Redis) -> str:
    return redis_server.url


@hypothesis_settings(
    max_examples=150,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data(), keep=KEEPS)
def test_the_script_does_what_the_model_does(
    url: str, monkeypatch: pytest.MonkeyPatch, data: st.DataObject, keep: int
) -> None:
    monkeypatch.setattr(record, "MAX_POSTBACKS_KEPT", keep)
    normalised_postbacks = data.draw(
        st.lists(strategies.normalised_postbacks(), min_size=1, max_size=8)
    )
    key = normalised_postbacks[0].key
    mine = [normalised for normalised in normalised_postbacks if normalised.key == key]
    batches = data.draw(
        st.lists(
            st.lists(
                st.builds(
                    merging,
                    st.sampled_from(mine),
                    st.integers(1, 10**15),
                    redelivered=st.booleans(),
                ),
                min_size=1,
                max_size=6,
            ),
            min_size=1,
            max_size=6,
        )
    )
    asyncio.run(_compare(url, Model(key, keep), batches))


async def _compare(url: str, model: Model, batches: list[list[Merging]]) -> None:
    store = Store(Settings(redis_url=url))
    try:
        key = batches[0][0].normalised.key
        await store._redis.delete(key.redis)  # noqa: SLF001 (the test's own clean slate)
        for batch in batches:
            letters, told = model.merge(batch)
            (merged,) = await store.merge([received(each) for each in batch])
            assert isinstance(merged, Merged)
            assert merged.results == letters
            assert merged.record == told
            assert await store.record(key) == model.record()
    finally:
        await store.aclose()


async def test_over_the_limit_the_lowest_go_in_any_order(settings: Settings) -> None:
    """A hundred distinct postbacks in three orders: the same 64, and 36 counted."""
    dice = random.Random(1)
    many = [
        msgspec.json.encode(
            {
                "origin": "MMS_MT",
                "code": dice.choice(["N101", "N102", "E102", "N501", "N502"]),
                "tracking-id": "many",
                "timestamp": f"2026-11-24T10:{number // 60:02}:{number % 60:02}Z",
            }
        )
        for number in range(100)
    ]
    records = set()
    store = Store(settings)
    for _ in range(3):
        dice.shuffle(many)
        normalised_postbacks = [decode("default", body) for body in many]
        for start in range(0, 100, 7):
            await store.merge(
                [
                    received(Merging(normalised, 1))
                    for normalised in normalised_postbacks[start : start + 7]
                ]
            )
        found = await store.record(normalised_postbacks[0].key)
        assert found is not None
        assert (len(found.entries), found.dropped) == (64, True)
        records.add(found)
        again = await store.merge(
            [received(Merging(normalised, 1)) for normalised in normalised_postbacks]
        )
        assert "n" not in "".join(one.results for one in again if isinstance(one, Merged)).lower()
        assert await store.record(normalised_postbacks[0].key) == found, (
            "what was dropped came again"
        )
        await store._redis.flushall()  # noqa: SLF001 (the test's own clean slate)
    await store.aclose()
    assert len(records) == 1


LARGEST = 32 * 1024
"""Bytes of a record that come back with a merge, beside what decides its tracks."""


def _large(code: str, number: int, size: int) -> NormalisedPostback:
    fields = {
        "origin": "MMS_MT",
        "code": code,
        "tracking-id": "large",
        "timestamp": f"2026-11-24T10:00:{number:02}Z",
    }
    extra = {f"x{at}": "x" * 1000 for at in range(size)}
    return decode("default", msgspec.json.encode(fields | extra))


def _bytes(found: Record, track: Track) -> list[int]:
    return [len(record.entry_value(1, entry.postback)) for entry in found.of(track)]


async def _told(store: Store, *normalised_postbacks: NormalisedPostback) -> Record:
    (merged,) = await store.merge(
        [received(Merging(normalised, 1)) for normalised in normalised_postbacks]
    )
    assert isinstance(merged, Merged)
    assert merged.record is not None
    return merged.record


async def test_of_a_large_record_so_much_comes_back_with_a_merge(settings: Settings) -> None:
    """A window of small postbacks must not bring megabytes for each of them into a worker."""
    store = Store(settings)
    many = [_large("E101", number, 30) for number in range(40)]
    await store.merge([received(Merging(normalised, 1, 0)) for normalised in many])
    await store.merge([received(Merging(_large("E501", 1, 30), 1, 0))])

    small = _large("E101", 50, 0)
    told = await _told(store, small)
    assert [entry.rank for entry in told.of(Track.MESSAGE)] == [small.rank, many[-1].rank]
    assert told.tracks() == [Track.MESSAGE]

    both = _large("E101", 51, 30), _large("E501", 51, 30)
    told = await _told(store, *both)
    for normalised in both:
        assert told.of(normalised.track)[0].rank == normalised.rank, "what decides is always there"

    whole = await store.record(small.key)
    assert whole is not None
    assert len(whole.entries) == 44
    await store.aclose()


async def test_a_record_below_the_limit_comes_back_whole(settings: Settings) -> None:
    store = Store(settings)
    many = [_large("N101", number, 1) for number in range(25)]
    told = await _told(store, *many, _large("N102", 59, 1))
    assert sum(_bytes(told, Track.MESSAGE)) < LARGEST
    assert len(told.entries) == 26
    await store.aclose()
