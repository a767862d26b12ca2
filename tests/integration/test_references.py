"""The index of client references: a string while it has one tracking-id, then a sorted set."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from deploy.local.servers import Redis
from shared.postback.normalise import decode
from shared.postback.stored import FORMATS
from shared.settings.settings import Settings
from tests.support.model import received
from workers.store import MAX_TRACKING_IDS, Store
from workers.verdicts import Received

KEY = "mms:ref:{acme/R}"
Arrivals = Sequence[tuple[str, int]]


@pytest.fixture(scope="module")
def url(redis_server: Redis) -> str:
    return redis_server.url


@pytest.fixture
async def stores(redis_server: Redis) -> AsyncIterator[Mapping[int, Store]]:
    async with _stores(redis_server.url) as stores:
        yield stores


@contextlib.asynccontextmanager
async def _stores(url: str) -> AsyncIterator[Mapping[int, Store]]:
    """One for each format, and no index."""
    async with contextlib.AsyncExitStack() as stack:
        stores = {
            number: await stack.enter_async_context(
                contextlib.aclosing(Store(Settings(redis_url=url, record_format=number)))
            )
            for number in FORMATS
        }
        await stores[2]._redis.delete(KEY)  # noqa: SLF001 (the test's own clean slate)
        yield stores


def arrived(tracking_id: str, received_at: int) -> Received:
    fields = {"origin": "MMS_MT", "code": "N101", "tracking-id": tracking_id}
    body = msgspec.json.encode(fields | {"client-reference": "R"})
    return received(decode("acme", body), received_at)


async def kind(store: Store) -> object:
    return await store._redis.type(KEY)  # noqa: SLF001


async def test_one_tracking_id_is_a_string_and_two_are_a_sorted_set(
    stores: Mapping[int, Store],
) -> None:
    store = stores[2]
    await store.merge([arrived("one", 5), arrived("one", 9)])
    await store.merge([arrived("one", 7)])
    assert await kind(store) == b"string"
    assert await store.tracking_ids("acme", "R") == ["one"]
    await store.merge([arrived("other", 8)])
    assert await kind(store) == b"zset"
    assert await store.tracking_ids("acme", "R") == ["one", "other"]
    assert 0 < await store._redis.ttl(KEY) <= 7 * 86400  # noqa: SLF001


async def test_with_format_1_it_is_always_a_sorted_set(stores: Mapping[int, Store]) -> None:
    """Release 0.1.0 cannot read or change a string."""
    await stores[2].merge([arrived("one", 5)])
    await stores[1].merge([arrived("one", 4)])
    assert await kind(stores[2]) == b"zset"
    await stores[2].merge([arrived("one", 6)])
    assert await kind(stores[2]) == b"zset"
    assert await stores[2].tracking_ids("acme", "R") == ["one"]


async def test_without_a_reference_there_are_no_tracking_ids(stores: Mapping[int, Store]) -> None:
    assert await stores[2].tracking_ids("acme", "R") == []


@hypothesis_settings(
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    windows=st.lists(
        st.tuples(
            st.sampled_from(sorted(FORMATS)),
            st.lists(
                st.tuples(st.sampled_from(["a", "b", "é\0", "c"]), st.integers(0, 2**53)),
                min_size=1,
                max_size=4,
            ),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_the_order_is_that_of_the_latest_arrivals_in_every_mixture_of_formats(
    url: str, windows: Sequence[tuple[int, Arrivals]]
) -> None:
    asyncio.run(_compare(url, windows))


async def _compare(url: str, windows: Sequence[tuple[int, Arrivals]]) -> None:
    async with _stores(url) as stores:
        latest: dict[str, int] = {}
        for number, arrivals in windows:
            await stores[number].merge([arrived(*each) for each in arrivals])
            for tracking_id, received_at in arrivals:
                latest[tracking_id] = max(latest.get(tracking_id, 0), received_at)
        found = await stores[2].tracking_ids("acme", "R")
        assert sorted(found) == sorted(latest)
        assert [latest[each] for each in found] == sorted(latest.values(), reverse=True)


async def test_of_many_tracking_ids_the_latest_are_kept(stores: Mapping[int, Store]) -> None:
    store = stores[2]
    await store.merge([arrived("T0", 1)])
    await store.merge([arrived(f"T{number}", number + 1) for number in range(1, 100)])
    found = await store.tracking_ids("acme", "R")
    assert found == [f"T{number}" for number in range(99, 99 - MAX_TRACKING_IDS, -1)]
