"""A Redis or a Redis Cluster that is away, or partly away: always the same clear error."""

import asyncio
from pathlib import Path

import pytest
from redis import exceptions

from deploy.local.servers import Redis
from shared.errors import StateUnavailableError, UnsupportedRedisError
from shared.postback.envelope import Arrival
from shared.postback.normalise import decode
from shared.settings.settings import Settings
from tests.support.old_redis import OldRedis
from tests.support.redis_cluster import ask, redis_cluster, url
from workers.admin.doctor.finding import ok
from workers.admin.doctor.redis_checks import check_redis
from workers.store import Store
from workers.verdicts import Merged, Received


def received(number: int) -> Received:
    body = b'{"origin":"MMS_MT","code":"N102","status":"Delivered","tracking-id":"T%d"}' % number
    arrival = Arrival(1, "default", "", body)
    return Received(arrival, decode("default", body), redelivered=False)


async def test_a_cluster_that_is_lost_and_back(tmp_path: Path) -> None:
    with redis_cluster(tmp_path) as nodes:
        store = Store(Settings(redis_url=url(nodes)))
        await store.check()
        await store.check_version()
        assert isinstance((await store.merge([received(1)]))[0], Merged)
        for node in nodes:
            node.kill()
        for _ in range(2):
            with pytest.raises(StateUnavailableError):
                await store.check()
            with pytest.raises(StateUnavailableError):
                await store.merge([received(2)])
            with pytest.raises(StateUnavailableError):
                await store.record(received(1).normalised.key)
        for node in nodes:
            node.start()
        async with asyncio.timeout(20):
            while True:
                try:
                    await store.check()
                    merged = await store.merge([received(number) for number in range(1, 40)])
                    break
                except StateUnavailableError:
                    await asyncio.sleep(0.1)
        assert all(isinstance(each, Merged) for each in merged)
        await store.aclose()


async def test_one_primary_of_a_cluster_that_takes_no_writes(tmp_path: Path) -> None:
    with redis_cluster(tmp_path) as nodes:
        store = Store(Settings(redis_url=url(nodes)))
        for option, refusal in (("maxmemory", "OOM|maxmemory"), ("min-replicas-to-write", "NOREP")):
            for node in nodes:
                await store.check()
                ask(node, "CONFIG", "SET", option, "1")
                with pytest.raises(StateUnavailableError, match=refusal):
                    await store.check()
                ask(node, "CONFIG", "SET", option, "0")
        await store.check()
        await store.aclose()


async def test_a_cluster_that_was_never_there(tmp_path: Path) -> None:
    nodes = [Redis(tmp_path / "redis")]
    store = Store(Settings(redis_url=url(nodes)))
    for _ in range(2):
        with pytest.raises(StateUnavailableError):
            await store.check()
    await store.aclose()


async def test_slots_that_no_node_has(tmp_path: Path) -> None:
    with redis_cluster(tmp_path, options=("--cluster-require-full-coverage", "no")) as nodes:
        for node in nodes:
            ask(node, "CLUSTER", "DELSLOTSRANGE", "0", "5460")
        store = Store(Settings(redis_url=url(nodes)))
        with pytest.raises(StateUnavailableError):
            await store.merge([received(number) for number in range(40)])
        await store.aclose()


async def test_a_connection_lost_between_two_scripts(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(settings)
    load = store._redis.script_load  # noqa: SLF001 (to break it between two calls)
    calls = 0

    async def load_once(source: bytes) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise exceptions.ConnectionError("Connection closed by server.")
        return await load(source)

    monkeypatch.setattr(store._redis, "script_load", load_once)  # noqa: SLF001
    with pytest.raises(StateUnavailableError):
        await store.merge([received(1)])
    assert isinstance((await store.merge([received(1)]))[0], Merged)
    await store.aclose()


async def test_an_old_redis_is_refused_by_its_version() -> None:
    async with await asyncio.start_server(OldRedis(b"6.2.14"), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        store = Store(Settings(redis_url=f"redis://127.0.0.1:{port}/0"))
        with pytest.raises(UnsupportedRedisError, match=r"redis 6\.2\.14; .* needs Redis 7"):
            await store.check_version()
        await store.aclose()


async def test_doctor_shows_what_valkey_calls_itself() -> None:
    """Its INFO has a `redis_version` too: that of the Redis that it is compatible with."""
    async with await asyncio.start_server(OldRedis(b"8.1.1", b"valkey"), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = Settings(redis_url=f"redis://127.0.0.1:{port}/0")
        findings = [each async for each in check_redis(settings)]
        assert findings[0] == ok("redis version", "valkey 8.1.1")
