"""Growth with records: what a merge costs Redis while it holds few records, and many."""

import asyncio
import contextlib
import statistics
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

import msgspec
from redis import Redis as RedisClient

from deploy.local.child import running
from deploy.local.servers import Redis
from shared.postback.normalise import decode
from shared.postback.record import reference_key
from shared.settings.settings import Settings
from tests.bench import traffic
from tests.bench.measure import exact_cpu, micro
from tests.bench.scale import Scale
from tests.bench.site import Site, say
from workers.store import Store
from workers.verdicts import Received

WINDOW: Final = 500
MERGED: Final = 20_000
"""Postbacks that are merged in a round, and removed after it."""

SAMPLE: Final = 1_000
"""Hashes of which the size is asked."""

COLUMNS: Final = ("Redis CPU µs", "bytes a record", "merge µs", "of it the hash, bytes")


def rounds(site: Site, scale: Scale) -> dict[int, list[tuple[float, ...]]]:
    """By number of records, the values of `COLUMNS` in each round.

    Each number has a Redis of its own, so that few and many can take turns.
    """
    found: dict[int, list[tuple[float, ...]]] = {size: [] for size in scale.records}
    with contextlib.ExitStack() as stack:
        filled = {size: stack.enter_context(_filled(site, size)) for size in scale.records}
        for number in range(scale.growth_rounds):
            for size in sorted(filled, reverse=bool(number % 2)):
                found[size].append(_merge_more(filled[size]))
                cpu = found[size][-1][0]
                say(f"growth, round {number + 1}: {size:,} records: {cpu:.1f} µs of Redis")
    return found


class _Filled(NamedTuple):
    """A Redis that holds records."""

    server: Redis
    settings: Settings
    bytes_each: float
    hash_bytes: float


@contextlib.contextmanager
def _filled(site: Site, size: int) -> Iterator[_Filled]:
    """Run a Redis with so many records of two postbacks each."""
    server = Redis(site.directory / f"redis-{size}")
    settings = msgspec.structs.replace(site.settings, redis_url=server.url)
    with running(server), RedisClient.from_url(server.url) as client:
        empty = _memory(client)
        asyncio.run(_merge(settings, "record", size * 2))
        _wait_for_rewrite(client)
        each = (_memory(client) - empty) / size
        hashes = islice(client.scan_iter("mms:message:*", count=SAMPLE), SAMPLE)
        sizes = [client.memory_usage(key) or 0 for key in hashes]
        yield _Filled(server, settings, each, statistics.median(sizes))


def _merge_more(filled: _Filled) -> tuple[float, ...]:
    """Merge postbacks of new messages into a Redis, and remove their records."""
    process = filled.server.pid or 0
    with RedisClient.from_url(filled.server.url) as client:
        _wait_for_rewrite(client)
        before = exact_cpu(process)
        took, keys = asyncio.run(_merge(filled.settings, "more", MERGED))
        redis = exact_cpu(process) - before
        client.delete(*keys)
    return micro(redis, MERGED), filled.bytes_each, micro(took, MERGED), filled.hash_bytes


async def _merge(settings: Settings, run: str, count: int) -> tuple[float, set[str]]:
    """Merge postbacks; return the seconds of Redis and its client, and the records' keys."""
    took = 0.0
    keys: set[str] = set()
    now = time.time_ns() // 1000
    bodies = traffic.bodies(count, run)
    async with contextlib.aclosing(Store(settings)) as store:
        while window := list(islice(bodies, WINDOW)):
            received = [
                Received(traffic.arrival(body, now), decode("default", body), redelivered=False)
                for body in window
            ]
            keys |= _keys(received)
            began = time.perf_counter()
            await store.merge(received)
            took += time.perf_counter() - began
    return took, keys


def _keys(received: Sequence[Received]) -> set[str]:
    """The keys of the records and of the references."""
    found = {each.normalised.key.redis for each in received}
    for each in received:
        reference = each.normalised.postback.client_reference or ""
        found.add(reference_key(each.normalised.key.source, reference))
    return found


def _memory(client: RedisClient) -> int:
    return int(client.info("memory")["used_memory"])


def _wait_for_rewrite(client: RedisClient) -> None:
    """Wait while Redis rewrites its file in a child process, which costs CPU and memory."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        state = client.info("persistence")
        if not (state["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"]):
            return
        time.sleep(0.1)
