"""Each hostile request alone: it is answered, kept if answered 200, and harms no other postback."""

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Final

import aio_pika
import aiohttp
import pytest

from deploy.local.services import Service
from shared.rabbitmq import topology
from tests.support.hostile import Hostile, good, table
from tests.support.site import Site

NEIGHBOURS: Final = 40
DEADLINE: Final = 10.0
"""Seconds within which later good postbacks must be in the state."""

RESPONSE_LIMIT: Final = 12.0
"""Seconds after which a request counts as not answered; the provider waits 10."""

MEMORY_LIMIT: Final = 256 * 2**20
"""Bytes that a process may use, whatever it was sent."""

BROKEN: Final = "later good postbacks do not arrive"
"""After this harm no other request can be tested."""

PARALLEL_REQUESTS: Final = 16
TIMES: Final = 1000


class Kept:
    """The output of the pipeline: dead letters by body, and passthrough events."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.dead: Counter[bytes] = Counter()
        self.events: list[bytes] = []

    @contextlib.asynccontextmanager
    async def collecting(self) -> AsyncIterator["Kept"]:
        """Consume dead letters and events as they come, so that their queues do not fill up."""
        async with await aio_pika.connect(self._site.rabbit.url) as connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=100)
            events = await channel.declare_queue(exclusive=True)
            await events.bind(topology.EVENTS, "passthrough.#")
            dead = await channel.get_queue(topology.DEAD)
            await dead.consume(self._dead_letter, no_ack=True)
            await events.consume(self._event, no_ack=True)
            yield self

    async def _dead_letter(self, message: aio_pika.abc.AbstractIncomingMessage) -> None:
        self.dead[message.body] += 1

    async def _event(self, message: aio_pika.abc.AbstractIncomingMessage) -> None:
        self.events.append(message.body)

    async def has(self, hostile: Hostile, taken: int) -> bool:
        """Whether each request that was answered 200 is in the dead letters, events or state."""
        if self.dead[hostile.body] >= taken:
            return True
        if not hostile.tracking_id:
            return False
        if any(hostile.tracking_id.encode() in event for event in self.events):
            return True
        async with self._site.state() as state:
            return bool(await state.keys(f"mms:message:{{default/{hostile.tracking_id}*"))


async def send(port: int, wire: bytes) -> int:
    """The status of the response, 0 if the connection was closed without one.

    Raises:
        TimeoutError: neither happened within `RESPONSE_LIMIT`.
    """
    async with asyncio.timeout(RESPONSE_LIMIT):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            with contextlib.suppress(ConnectionError):
                writer.write(wire)
                await writer.drain()
                writer.write_eof()
            with contextlib.suppress(ConnectionError):
                line = await reader.readline()
                status = re.match(rb"HTTP/1\.[01] (\d{3})", line)
                return int(status[1]) if status else 0
            return 0
        finally:
            writer.close()


async def send_often(port: int, hostile: Hostile, times: int) -> Counter[int]:
    """Send a request so many times; the statuses of the responses."""
    statuses: Counter[int] = Counter()
    remaining = iter(range(times))

    async def sender() -> None:
        for _ in remaining:
            statuses[await send(port, hostile.wire)] += 1

    async with asyncio.TaskGroup() as senders:
        for _ in range(min(PARALLEL_REQUESTS, times)):
            senders.create_task(sender())
    return statuses


async def neighbours_arrive(site: Site, prefix: str) -> None:
    """Send good postbacks: each must be answered 200 and be in the state within the deadline."""
    names = [f"{prefix}-{at}" for at in range(NEIGHBOURS)]
    url = f"http://127.0.0.1:{site.settings.ingest_port}/postbacks"
    async with aiohttp.ClientSession() as client, asyncio.TaskGroup() as posts:

        async def one(name: str) -> None:
            async with client.post(url, data=good(name)) as answer:
                assert answer.status == 200

        for name in names:
            posts.create_task(one(name))
    keys = [f"mms:message:{{default/{name}}}" for name in names]
    async with site.state() as state, asyncio.timeout(DEADLINE):
        while await state.exists(*keys) < len(keys):
            await asyncio.sleep(0.02)


def memory(service: Service) -> float:
    """The resident memory of a process in bytes."""
    found = re.search(
        r"^process_resident_memory_bytes (\S+)", service.ask("/metrics")[1], re.MULTILINE
    )
    assert found
    return float(found[1])


async def harm(site: Site, kept: Kept, hostile: Hostile, times: int) -> str:
    """The harm of a request that was sent so many times; empty if there is none."""
    statuses: Counter[int] = Counter()
    found = ""
    try:
        statuses = await send_often(site.settings.ingest_port, hostile, times)
    except* TimeoutError:
        found = "no answer"
    try:
        await neighbours_arrive(site, f"after {hostile.name}")
    except* (TimeoutError, AssertionError, aiohttp.ClientError) as errors:
        found = f"{BROKEN}: {errors.exceptions[0]!r}"
    if found:
        return found
    if unexpected := statuses.keys() & {500, 502, 504}:
        return f"answered {unexpected}"
    try:
        async with asyncio.timeout(DEADLINE):
            while statuses[200] and not await kept.has(hostile, statuses[200]):
                await asyncio.sleep(0.02)
    except TimeoutError:
        return f"some of {statuses[200]} requests answered 200 are not kept"
    return ""


async def survive(site: Site, requests: Sequence[Hostile], times: int) -> dict[str, str]:
    """Send each request so many times; the harms by the names of the requests."""
    processes = (await site.ingest(), await site.worker())
    harms: dict[str, str] = {}
    async with Kept(site).collecting() as kept:
        for hostile in requests:
            if found := await harm(site, kept, hostile, times):
                harms[hostile.name] = found
            if not all(each.is_alive() for each in processes):
                return harms | {hostile.name: "a process has ended"}
            if found.startswith(BROKEN):
                return harms
            if max(map(memory, processes)) > MEMORY_LIMIT:
                return harms | {hostile.name: f"bytes: {[*map(memory, processes)]}"}
    for each in processes:
        assert "Traceback" not in each.log()
    return harms


def test_the_table() -> None:
    names = [each.name for each in table()]
    assert len(names) == len(set(names)) >= 60


@pytest.mark.timeout(300)
async def test_each_hostile_request_once(site: Site) -> None:
    assert await survive(site, table(), 1) == {}


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["body", "postback", "header", "coding", "wire"])
async def test_each_hostile_request_a_thousand_times(site: Site, kind: str) -> None:
    requests = [each for each in table() if each.name.startswith(f"{kind}: ")]
    assert requests
    assert await survive(site, requests, TIMES) == {}
