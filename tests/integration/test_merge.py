"""The merge in Redis, compared with its model in Python and with the laws."""

import asyncio
import contextlib
import random
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from deploy.local.servers import Redis
from shared.postback import record
from shared.postback.codes import Track
from shared.postback.normalise import decode
from shared.postback.postback import NormalisedPostback
from shared.postback.record import Record
from shared.postback.stored import FORMATS
from shared.settings.settings import Settings
from tests.support import strategies
from tests.support.hashes import as_hash
from tests.support.model import Model, received
from workers.store import Store
from workers.verdicts import Merged, Received, Verdict

KEEPS = st.sampled_from([3, 5, 64])


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
def test_the_script_equals_the_model(
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
                    received,
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
    # Workers of two settings side by side: the record is the same in every mixture of formats.
    formats = st.lists(st.sampled_from(sorted(FORMATS)), min_size=6, max_size=6)
    asyncio.run(_compare(url, Model(key, keep), batches, data.draw(formats)))


async def _compare(
    url: str, model: Model, batches: list[list[Received]], formats: list[int]
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        stores = {
            number: await stack.enter_async_context(
                contextlib.aclosing(Store(Settings(redis_url=url, record_format=number)))
            )
            for number in FORMATS
        }
        store = stores[2]
        key = batches[0][0].normalised.key
        await store._redis.delete(key.redis)  # noqa: SLF001 (the test's own clean slate)
        for batch, number in zip(batches, formats, strict=False):
            (merged,) = await stores[number].merge(batch)
            assert merged == model.merge(batch)
            assert await store.record(key) == model.record()


@pytest.mark.parametrize("formats", [(2,), (1,), (1, 2)], ids=str)
async def test_over_the_limit_the_lowest_ranks_are_dropped_in_any_order(
    settings: Settings, formats: Sequence[int]
) -> None:
    """A hundred distinct postbacks in three orders: the same 64 are kept.

    Each has values of its own where the postbacks of a message usually have the same ones.
    """
    dice = random.Random(1)
    many = [
        msgspec.json.encode(
            {
                "origin": "MMS_MT",
                "code": dice.choice(["N101", "N102", "E102", "N501", "N502"]),
                "tracking-id": "many",
                "campaign-ref": f"campaign {number}",
                "timestamp": f"2026-11-24T10:{number // 60:02}:{number % 60:02}Z",
            }
        )
        for number in range(100)
    ]
    records = set()
    stores = [Store(msgspec.structs.replace(settings, record_format=each)) for each in formats]
    store = stores[0]
    for _ in range(3):
        dice.shuffle(many)
        normalised_postbacks = [decode("default", body) for body in many]
        for start in range(0, 100, 7):
            await dice.choice(stores).merge(
                [received(normalised) for normalised in normalised_postbacks[start : start + 7]]
            )
        found = await store.record(normalised_postbacks[0].key)
        assert found is not None
        assert (len(found.entries), found.dropped) == (64, True)
        records.add(found)
        fields = await store._redis.hkeys(found.key.redis)  # noqa: SLF001
        own = [name for name in fields if len(name) in {21, 24}]
        assert len(fields) == 64 + len(own) + 1, "one common field for each of them, and `dropped`"
        again = await store.merge([received(normalised) for normalised in normalised_postbacks])
        assert not [new for each in again if isinstance(each, Merged) for new in each.new()]
        assert await store.record(normalised_postbacks[0].key) == found, (
            "a dropped postback was merged again"
        )
        await store._redis.flushall()  # noqa: SLF001 (the test's own clean slate)
    for each in stores:
        await each.aclose()
    assert len(records) == 1


LARGEST = 32 * 1024
"""Bytes of a record that a merge returns, beside the postbacks that decide its tracks."""


def _large(code: str, number: int, size: int) -> NormalisedPostback:
    fields = {
        "origin": "MMS_MT",
        "code": code,
        "tracking-id": "large",
        "timestamp": f"2026-11-24T10:00:{number:02}Z",
    }
    extra = {f"x{at}": "x" * 1000 for at in range(size)}
    return decode("default", msgspec.json.encode(fields | extra))


def _bytes(found: Record, track: Track) -> int:
    return sum(len(msgspec.msgpack.encode(entry.postback)) for entry in found.of(track))


async def _merged_record(store: Store, *normalised_postbacks: NormalisedPostback) -> Record:
    (merged,) = await store.merge([received(normalised) for normalised in normalised_postbacks])
    assert isinstance(merged, Merged)
    assert merged.record is not None
    return merged.record


async def test_a_merge_returns_only_a_part_of_a_large_record(settings: Settings) -> None:
    """A window of small postbacks must not return megabytes for each of them to a worker."""
    store = Store(settings)
    many = [_large("E101", number, 30) for number in range(40)]
    await store.merge([received(normalised) for normalised in many])
    await store.merge([received(_large("E501", 1, 30))])

    small = _large("E101", 50, 0)
    returned = await _merged_record(store, small)
    assert [entry.rank for entry in returned.of(Track.MESSAGE)] == [small.rank, many[-1].rank]
    assert returned.tracks() == [Track.MESSAGE]

    both = _large("E101", 51, 30), _large("E501", 51, 30)
    returned = await _merged_record(store, *both)
    for normalised in both:
        assert returned.of(normalised.track)[0].rank == normalised.rank, "it decides"

    whole = await store.record(small.key)
    assert whole is not None
    assert len(whole.entries) == 44
    await store.aclose()


async def test_a_merge_returns_the_whole_record_below_the_limit(settings: Settings) -> None:
    store = Store(settings)
    many = [_large("N101", number, 1) for number in range(25)]
    returned = await _merged_record(store, *many, _large("N102", 59, 1))
    assert _bytes(returned, Track.MESSAGE) < LARGEST
    assert len(returned.entries) == 26
    await store.aclose()


async def test_a_record_of_64_large_postbacks_with_large_common_fields(settings: Settings) -> None:
    """The common fields count too, and each returned postback has its own."""
    store = Store(settings)

    def large(number: int) -> NormalisedPostback:
        fields = {
            "origin": "MMS_MT",
            "code": "E101",
            "tracking-id": "common",
            "timestamp": f"2026-11-24T10:{number // 60:02}:{number % 60:02}Z",
        }
        names = ("operator-name", "campaign-ref", "audio-name", "video-name", "image-name")
        return decode(
            "default",
            msgspec.json.encode(fields | dict.fromkeys(names, f"{number:04}" * 256)),
        )

    many = [large(number) for number in range(90)]
    for start in range(0, 90, 10):
        await store.merge([received(each) for each in many[start : start + 10]])
    last = large(99)
    returned = await _merged_record(store, last)
    assert _bytes(returned, Track.MESSAGE) < LARGEST
    assert [entry.postback for entry in returned.of(Track.MESSAGE)] == [
        each.postback for each in [last, *many[::-1]][: len(returned.entries)]
    ]
    assert len(returned.entries) == 6
    whole = await store.record(last.key)
    assert whole is not None
    assert [entry.postback for entry in whole.entries] == [
        each.postback for each in [*many[27:], last]
    ]
    await store.aclose()


async def test_postbacks_with_the_same_common_fields_store_them_once(settings: Settings) -> None:
    store = Store(settings)
    fields = {"origin": "MMS_MT", "tracking-id": "once", "to": "15550100001", "mms-id": "M"}
    key = ""
    for code in ("N101", "N102", "E101", "N501"):
        normalised = decode("default", msgspec.json.encode(fields | {"code": code}))
        key = normalised.key.redis
        await store.merge([received(normalised)])
    names = await store._redis.hkeys(key)  # noqa: SLF001
    assert sorted(map(len, names)) == [1, 21, 21, 21, 21]
    assert b"0" in names
    await store.aclose()


@pytest.mark.parametrize("number", sorted(FORMATS))
async def test_a_postback_that_a_worker_of_0_2_0_added_again_is_there_once(
    settings: Settings, number: int
) -> None:
    """That release does not see format 2."""
    store = Store(msgspec.structs.replace(settings, record_format=number))
    both = [_large(code, 1, 0) for code in ("N101", "E101")]
    key = both[0].key
    for format_1_arrival, format_2_arrival in ((5, 9), (9, 5)):
        for order in (1, 2), (2, 1):
            await store._redis.delete(key.redis)  # noqa: SLF001 (the test's own clean slate)
            for each in order:
                arrival = format_1_arrival if each == 1 else format_2_arrival
                for name, value in as_hash(both, arrival, written=each).items():
                    await store._redis.hset(key.redis, name, value)  # noqa: SLF001
            (merged,) = await store.merge([received(both[0], 5)])
            assert isinstance(merged, Merged)
            assert merged.verdicts == [Verdict.SAME_ARRIVAL]
            found = await store.record(key)
            assert found is not None
            assert [entry.received_at for entry in found.entries] == [5, 5]
            names = await store._redis.hkeys(key.redis)  # noqa: SLF001
            assert sorted(map(len, names)) == [1, 21, 21]
    await store.aclose()
