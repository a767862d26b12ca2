"""`mms-admin rebuild` on real servers."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import aiormq
import pytest
import redis.asyncio as redis
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from shared.postback import envelope
from shared.postback.envelope import Arrival
from shared.rabbitmq import topology
from shared.rabbitmq.session import open_session
from shared.settings.settings import Settings
from tests.support.admin import (
    DELIVERED,
    FAILED,
    SENT,
    admin,
    all_records,
    arrival,
    body,
    opened,
    publish,
    publish_and_process,
)
from workers.admin import archive
from workers.admin.unpublished import KEY


def postbacks(count: int) -> list[Arrival]:
    """Lives of many kinds, shuffled a little, with duplicates and dead letters among them."""
    arrivals: list[Arrival] = []
    for n in range(count):
        reference = {"client-reference": f"order-{n // 3}"}
        sent = body(f"T-{n}", "N101", "Sent", timestamp="2026-11-24T02:00:00Z", **reference)
        done = body(f"T-{n}", "N102", ("Delivered", "Expired", "Rejected")[n % 3])
        found = body(f"T-{n}", "N502", "Delivered", handset="Phone 1")
        life = [sent, done, found][: 1 + n % 3]
        life = life[::-1] if n % 2 else [*life, sent]
        arrivals += [arrival(content, at=20 * n + at) for at, content in enumerate(life)]
        if n % 50 == 0:
            arrivals.append(arrival(body(f"T-{n}", "X999", "x"), at=20 * n + 10))
    return arrivals


async def test_rebuild_restores_every_record_and_publishes_nothing(settings: Settings) -> None:
    arrivals = postbacks(1000)
    batches = [arrivals[at : at + 7] for at in range(0, len(arrivals), 7)]
    await publish_and_process(settings, *batches)
    before = await all_records(settings)
    events = (await admin(settings, "events", "--since", "1h", "--limit", "1")).out
    assert events
    async with redis.Redis.from_url(settings.redis_url) as client:
        await client.flushdb()
    dry = (await admin(settings, "rebuild", "--dry-run", "--json")).lines[0]
    assert await all_records(settings) == {}
    ran = await admin(settings, "rebuild", "--json")
    (summary,) = ran.lines
    assert await all_records(settings) == before
    assert summary["finished"]
    assert summary["batches"] == dry["batches"] == len(batches)
    assert summary["postbacks"] == len(arrivals)
    assert summary["undecodable"] == 20
    assert summary["records"] == 1000
    assert summary["new"] + summary["duplicates"] + summary["undecodable"] == len(arrivals)
    again = (await admin(settings, "rebuild", "--json")).lines[0]
    assert (again["new"], again["events"]) == (0, 0)
    assert await all_records(settings) == before


async def test_rebuild_emits_events_of_batches_that_only_the_archive_has(
    settings: Settings,
) -> None:
    await publish_and_process(settings, [SENT, FAILED])
    async with opened(settings) as session:
        await session.channel.queue_purge(topology.STATE_QUEUE)
        await publish(session, [DELIVERED])
        await session.channel.queue_purge(topology.STATE_QUEUE)
    summary = (await admin(settings, "rebuild", "--emit", "--json")).lines[0]
    assert (summary["new"], summary["duplicates"], summary["events"]) == (1, 2, 1)
    published = (await admin(settings, "events", "--since", "1h", "--limit", "2", "--json")).lines
    assert [event["type"] for event in published] == ["mms.message.failed", "mms.message.delivered"]


KILLED_WITH_EVENTS_UNPUBLISHED = """
import os
import signal
from workers.admin.restore import EventPublisher
EventPublisher.publish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_events_of_a_killed_rebuild_are_published_by_the_next_one(
    settings: Settings,
) -> None:
    await publish_and_process(settings, [SENT, FAILED])
    async with opened(settings) as session:
        await publish(session, [DELIVERED])
        await session.channel.queue_purge(topology.STATE_QUEUE)
    killed = await admin(settings, "rebuild", "--emit", before=KILLED_WITH_EVENTS_UNPUBLISHED)
    assert killed.status == -signal.SIGKILL
    summary = (await admin(settings, "rebuild", "--since", "0s", "--emit", "--json")).lines[0]
    assert (summary["new"], summary["events"]) == (0, 1)
    published = (await admin(settings, "events", "--since", "1h", "--limit", "2", "--json")).lines
    assert [event["type"] for event in published] == ["mms.message.failed", "mms.message.delivered"]
    again = (await admin(settings, "rebuild", "--emit", "--json")).lines[0]
    assert (again["new"], again["events"]) == (0, 0)
    async with redis.Redis.from_url(settings.redis_url) as client:
        assert not await client.exists(KEY)


async def test_rebuild_emits_dead_letters_of_batches_that_only_the_archive_has(
    settings: Settings,
) -> None:
    async with opened(settings) as session:
        await publish(session, [SENT, arrival(b"<postback", at=3, source="acme")])
        await session.publish(
            b"no batch",
            exchange=topology.POSTBACKS,
            properties=Basic.Properties(content_type=envelope.CONTENT_TYPE),
            limit=10,
        )
        await session.channel.queue_purge(topology.STATE_QUEUE)
    plain = (await admin(settings, "rebuild", "--json")).lines[0]
    assert (plain["undecodable"], plain["dead_letters"]) == (2, 0)
    assert (await admin(settings, "dead", "list", "--json")).lines == []
    summary = (await admin(settings, "rebuild", "--emit", "--json")).lines[0]
    assert (summary["undecodable"], summary["dead_letters"]) == (2, 2)
    dead_letters = (await admin(settings, "dead", "list", "--json")).lines
    assert {(each["reason"], each["source"]) for each in dead_letters} == {
        ("malformed", "acme"),
        ("malformed", ""),
    }


async def test_a_record_that_dropped_some_is_rebuilt_as_it_was(settings: Settings) -> None:
    """More postbacks than a record keeps, then the same archive once and twice more."""
    many = [arrival(body("T-1", "N101", "Sent", handset=f"Phone {n}"), at=n) for n in range(100)]
    await publish_and_process(settings, many)
    before = await all_records(settings)
    for _ in range(2):
        again = (await admin(settings, "rebuild", "--json")).lines[0]
        assert (again["new"], again["duplicates"]) == (0, 100)
        assert await all_records(settings) == before
    async with redis.Redis.from_url(settings.redis_url) as client:
        await client.flushdb()
    await admin(settings, "rebuild", "--json")
    assert await all_records(settings) == before


async def test_an_archive_that_sends_nothing_has_not_ended(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RabbitMQ is slow to serve a consumer that begins at a time; there is something, however."""
    consume = aiormq.Channel.basic_consume

    async def slowly(
        self: aiormq.Channel,
        queue: str,
        callback: Callable[[DeliveredMessage], Awaitable[None]],
        **options: Any,
    ) -> object:
        async def later(message: DeliveredMessage) -> None:
            await asyncio.sleep(2.5)
            await callback(message)

        return await consume(self, queue, later, **options)

    await publish_and_process(settings, [SENT], [DELIVERED])
    last = await archive.last_offset(settings)
    assert last == 1
    session = await open_session(settings, name="test", prefetch=archive.PREFETCH)
    monkeypatch.setattr(aiormq.Channel, "basic_consume", slowly)
    since = datetime.now(UTC) - timedelta(hours=1)
    found = [message async for message in archive.messages(session, since, last)]
    await session.close()
    assert len(found) == 2


async def test_rebuild_of_an_empty_archive(settings: Settings) -> None:
    await (await open_session(settings, name="test")).close()
    summary = (await admin(settings, "rebuild", "--json")).lines[0]
    assert (summary["batches"], summary["finished"]) == (0, True)


async def test_rebuild_since_a_time_after_everything(settings: Settings) -> None:
    await publish_and_process(settings, [SENT])
    await asyncio.sleep(1.1)  # RabbitMQ takes whole seconds
    summary = (await admin(settings, "rebuild", "--since", "0s", "--json")).lines[0]
    assert (summary["batches"], summary["finished"]) == (0, True)
    summary = (await admin(settings, "rebuild", "--since", "1h", "--json")).lines[0]
    assert summary["batches"] == 1
