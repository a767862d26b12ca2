"""`mms-admin` as a process of its own, on a real RabbitMQ and a real Redis."""

import asyncio
import base64
import contextlib
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import aiormq
import pytest
import redis.asyncio as redis
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from deploy.local.servers import RabbitMQ
from shared.postback import envelope
from shared.postback.dead_letter import Reason, dead_letter_of
from shared.postback.envelope import Arrival
from shared.rabbitmq import topology
from shared.rabbitmq.session import Session, open_session
from shared.settings.settings import Settings
from workers.admin import archive
from workers.admin.unpublished import KEY
from workers.consumer import Delivery
from workers.outbox import Outbox
from workers.pipeline import process_window
from workers.publish import publish_outbox
from workers.store import Store

COMMAND = "import sys; sys.argv[0] = 'mms-admin'; from workers.admin.main import main; main()"
AT = 1_795_486_200_000_000


class Ran(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


async def start(
    settings: Settings, *arguments: str, before: str = ""
) -> asyncio.subprocess.Process:
    """Start `mms-admin`; `before` is Python that it runs first."""
    given = {
        f"MMS_{name.upper()}": ",".join(value) if isinstance(value, tuple) else str(value)
        for name in settings.__struct_fields__
        if name != "rules" and (value := getattr(settings, name)) is not None
    }
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", before + COMMAND, *arguments),
        env={**os.environ, **given, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def admin(settings: Settings, *arguments: str, before: str = "") -> Ran:
    process = await start(settings, *arguments, before=before)
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return Ran(process.returncode or 0, out.decode(), err.decode())


def body(tracking_id: str, code: str, status: str, **more: str) -> bytes:
    fields = {"origin": "MMS_MT", "code": code, "status": status, "tracking-id": tracking_id}
    return json.dumps(fields | {"from": "28444", "to": "+15550001111"} | more).encode()


def arrival(content: bytes, at: int = 0, source: str = "default") -> Arrival:
    return Arrival(AT + at, source, "application/json", content)


SENT = arrival(body("T-1", "N101", "Message Sent", timestamp="2026-11-24T02:00:00Z"))
FAILED = arrival(body("T-1", "E102", "Failed", timestamp="2026-11-24T02:00:01Z"), at=1)
DELIVERED = arrival(
    body("T-1", "N102", "Delivered", **{"client-reference": "order-1", "operator-id": "31003"}),
    at=2,
)


@contextlib.asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Session]:
    session = await open_session(settings, name="test")
    try:
        yield session
    finally:
        await session.close()


async def publish(session: Session, batch: Sequence[Arrival]) -> None:
    await session.publish(
        envelope.encode(batch),
        exchange=topology.POSTBACKS,
        properties=Basic.Properties(content_type=envelope.CONTENT_TYPE),
        limit=10,
    )


async def work(settings: Settings, session: Session) -> None:
    """Be the worker until the input queue is empty."""
    store = Store(settings)
    try:
        while True:
            message = await session.channel.basic_get(topology.STATE_QUEUE)
            if not message.delivery_tag:
                return
            delivery = Delivery(0, envelope.CONTENT_TYPE, message.body, redelivered=False)
            await publish_outbox(session, await process_window(store, [delivery]))
            await session.channel.basic_ack(message.delivery_tag)
    finally:
        await store.aclose()


async def through(settings: Settings, *batches: Sequence[Arrival]) -> None:
    """Let batches go their whole way: archive, state, events, dead letters."""
    async with opened(settings) as session:
        for batch in batches:
            await publish(session, batch)
        await work(settings, session)


async def input_bodies(session: Session) -> Counter[bytes]:
    """Take what is in the input queue; the postbacks in it, each in a batch of its own."""
    bodies: Counter[bytes] = Counter()
    while (message := await session.channel.basic_get(topology.STATE_QUEUE)).delivery_tag:
        (only,) = envelope.decode(message.body)
        bodies[only.body] += 1
        await session.channel.basic_ack(message.delivery_tag)
    return bodies


async def bury(session: Session, arrivals: Sequence[Arrival], reason: Reason) -> None:
    dead_letters = [dead_letter_of(each, reason, "a test", "") for each in arrivals]
    await publish_outbox(session, Outbox([], dead_letters))


async def everything(settings: Settings) -> dict[bytes, object]:
    """All that Redis holds, but for the workers' probe."""
    held: dict[bytes, object] = {}
    async with redis.Redis.from_url(settings.redis_url) as client:
        async for key in client.scan_iter(match="mms:*"):
            if (await client.type(key)) == b"hash":
                held[key] = await client.hgetall(key)
            elif (await client.type(key)) == b"zset":
                held[key] = await client.zrange(key, 0, -1, withscores=True)
    return held


async def test_show_lists_what_each_postback_changed(settings: Settings) -> None:
    await through(settings, [SENT], [FAILED], [DELIVERED])
    ran = await admin(settings, "show", "--ref", "order-1", "--json")
    (shown,) = ran.lines
    assert shown["tracks"]["message"]["outcome"] == "delivered"
    assert shown["tracks"]["message"]["to"] == "***11"
    assert [step["change"] for step in shown["timeline"]] == [
        "message: → sent",
        "message: sent → failed",
        "message: failed → delivered",
    ]
    table = (await admin(settings, "show", "T-1", "--raw")).out
    assert "message: failed → delivered" in table
    assert "+15550001111" in table
    assert "3 postbacks)" in table


async def test_show_of_what_nobody_knows(settings: Settings) -> None:
    ran = await admin(settings, "show", "T-404")
    assert (ran.status, ran.out) == (1, "")
    assert "Nothing is known about T-404" in ran.err
    assert (await admin(settings, "show")).status == 2


async def test_a_server_that_is_away_is_one_line_and_status_2(settings: Settings) -> None:
    away = settings.__class__(
        amqp_url="amqp://guest:guest@127.0.0.1:1/", redis_url="redis://127.0.0.1:1/0"
    )
    for arguments in (
        "show T-1",
        "events",
        "dead list",
        "dead replay",
        "dead purge --yes",
        "rebuild",
    ):
        ran = await admin(away, *arguments.split())
        assert (ran.status, ran.out) == (2, "")
        assert ran.err.startswith("mms-admin: ")
        assert ran.err.count("\n") == 1


async def test_events_from_the_log_through_a_filter(settings: Settings) -> None:
    await through(settings, [SENT, FAILED], [DELIVERED])
    ran = await admin(
        settings, "events", "--since", "1h", "--filter", "message.*.31003", "--limit", "1", "--json"
    )
    (event,) = ran.lines
    assert event["type"] == "mms.message.delivered"
    assert event["data"]["corrects"] == "failed"
    assert event["data"]["to"] == "***11"
    ran = await admin(settings, "events", "--since", "1h", "--limit", "2")
    first, second = ran.out.splitlines()
    assert "mms.message.failed" in first
    assert "***44→***11 corrects failed" in second


async def test_events_live(settings: Settings) -> None:
    process = await start(settings, "events", "--filter", "message.failed.#", "--limit", "1")
    following = asyncio.ensure_future(process.communicate())
    number = 0
    while not following.done():  # until the command has bound its queue
        number += 1
        failed = body(f"T-{number}", "E102", "Failed")
        await through(settings, [arrival(body(f"T-{number}", "N103", "x"))], [arrival(failed)])
        await asyncio.sleep(0.1)
    out, _ = await following
    assert b"mms.message.failed" in out
    assert b"expired" not in out.split(b"corrects")[0]


async def test_dead_letters_are_listed_and_shown_masked_and_escaped(settings: Settings) -> None:
    evil = arrival(b"<x>\x1b[31m +15550001111", source="acme")
    unknown = arrival(body("T-1", "X999", "what"), at=1)
    await through(settings, [SENT, evil, unknown])
    listed = (await admin(settings, "dead", "list", "--json")).lines
    assert {item["reason"] for item in listed} == {"malformed", "unknown-code"}
    (malformed,) = [item for item in listed if item["source"] == "acme"]
    assert "malformed" in (await admin(settings, "dead", "list", "--source", "acme")).out
    shown = (await admin(settings, "dead", "show", malformed["id"])).out
    assert "<x>\\x1b[31m +***11" in shown
    (raw,) = (await admin(settings, "dead", "show", malformed["id"], "--raw", "--json")).lines
    assert base64.b64decode(raw["postbacks"][0]["body_base64"]) == evil.body
    assert (await admin(settings, "dead", "show", "000000000000")).status == 1
    # All these commands only read: both dead letters are still there.
    assert len((await admin(settings, "dead", "list", "--json")).lines) == 2


async def test_replay_publishes_what_decodes_and_keeps_the_rest(
    settings: Settings,
) -> None:
    """This release decodes a postback that an earlier release did not know."""
    async with opened(settings) as session:
        await bury(session, [DELIVERED], Reason.UNKNOWN_CODE)
        await bury(session, [arrival(b"<x", source="acme")], Reason.MALFORMED)
        dry = await admin(settings, "dead", "replay", "--dry-run", "--json")
        assert {line["result"] for line in dry.lines} == {
            "would be message delivered",
            "would be kept: still malformed",
        }
        real = await admin(settings, "dead", "replay", "--json")
        assert {line["result"]: line["postbacks"] for line in real.lines} == {
            "replayed": 1,
            "kept: still malformed": 1,
        }
        message = await session.channel.basic_get(topology.STATE_QUEUE)
        assert envelope.decode(message.body) == [DELIVERED]
        (left,) = (await admin(settings, "dead", "list", "--json")).lines
        assert left["reason"] == "malformed"


async def test_a_batch_that_no_worker_finished_is_split(settings: Settings) -> None:
    async with opened(settings) as session:
        batch = [SENT, arrival(b"<killer", at=7, source="acme"), DELIVERED]
        await publish(session, batch)
        while (message := await session.channel.basic_get(topology.STATE_QUEUE)).delivery_tag:
            await session.channel.basic_nack(message.delivery_tag, requeue=True)
        item: dict[str, Any] = {}
        async with asyncio.timeout(20):
            while not item:
                for item in (await admin(settings, "dead", "list", "--json")).lines:
                    assert (item["reason"], item["postbacks"]) == ("undeliverable", 3)
        shown = (await admin(settings, "dead", "show", item["id"])).out
        assert "2 of 3 (acme" in shown
        dry = (await admin(settings, "dead", "replay", "--dry-run", "--json")).lines
        assert {line["result"] for line in dry} == {
            "would be message sent",
            "would be message delivered",
            "would become a dead letter of its own: still malformed",
        }
        await admin(settings, "dead", "replay", "--id", item["id"])
        assert await input_bodies(session) == Counter(each.body for each in batch)
        assert not (await admin(settings, "dead", "list", "--json")).lines


async def test_a_killed_replay_loses_nothing(settings: Settings) -> None:
    async with opened(settings) as session:
        buried = [arrival(body(f"T-{n}", "N103", "Expired"), at=n) for n in range(3000)]
        await bury(session, buried, Reason.UNKNOWN_CODE)
        process = await start(settings, "dead", "replay")
        while process.returncode is None:
            answer = await session.channel.queue_declare(topology.STATE_QUEUE, passive=True)
            if (answer.message_count or 0) >= 100:
                process.kill()
                await process.communicate()
        assert process.returncode < 0, "the replay was too quick to be killed"
        arrived = await input_bodies(session)
        assert 0 < len(arrived) < 3000
        (again,) = (await admin(settings, "dead", "replay", "--json")).lines
        assert again["result"] == "replayed"
        arrived += await input_bodies(session)
        assert set(arrived) == {each.body for each in buried}
        assert not (await admin(settings, "dead", "list", "--json")).lines


async def test_purge_and_export(settings: Settings, tmp_path: Path) -> None:
    async with opened(settings) as session:
        await bury(session, [arrival(b"<x"), arrival(b"\xff\x00", at=1)], Reason.MALFORMED)
        await bury(session, [DELIVERED], Reason.UNKNOWN_CODE)
        file = tmp_path / "dead.jsonl"
        await admin(settings, "dead", "export", str(file), "--reason", "malformed")
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        assert {base64.b64decode(line["body_base64"]) for line in lines} == {b"<x", b"\xff\x00"}
        assert file.stat().st_mode & 0o077 == 0
        assert (await admin(settings, "dead", "purge")).status == 1  # nobody answers
        assert len((await admin(settings, "dead", "list", "--json")).lines) == 3
        purged = await admin(settings, "dead", "purge", "--reason", "malformed", "--yes")
        assert purged.out == "2 dead letters removed\n"
        (left,) = (await admin(settings, "dead", "list", "--json")).lines
        assert left["reason"] == "unknown-code"
        assert (await admin(settings, "dead", "purge", "--yes")).out == "1 dead letter removed\n"


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_an_export_that_fails_leaves_the_file_as_it_was(
    settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "dead.jsonl"
    file.write_text("precious")
    away = settings.__class__(amqp_url="amqp://guest:guest@127.0.0.1:1/")
    assert (await admin(away, "dead", "export", str(file))).status == 2
    assert file.read_text() == "precious"
    assert names(tmp_path) == ["dead.jsonl"]
    await (await open_session(settings, name="test")).close()
    assert (await admin(settings, "dead", "export", str(file))).status == 0
    assert file.read_text() == ""


async def test_numbers_are_masked_by_their_field(settings: Settings) -> None:
    private = body(
        "T-1", "N102", "Delivered", **{"from-mask": "Jo 42", "client-reference": "1-555-000-1111"}
    ).replace(b"+15550001111", b"+1 (555) 000-1111")
    await through(settings, [arrival(private)])
    for arguments in (["show", "T-1"], ["events", "--since", "1h", "--limit", "1"]):
        for more in ([], ["--json"]):
            out = (await admin(settings, *arguments, *more)).out
            assert "T-1" in out
            assert "000" not in out.replace("000000", "").replace(".000", "")
            assert "Jo" not in out


async def test_control_characters_reach_no_terminal(settings: Settings) -> None:
    evil = body("T-1", "N102", "Delivered", handset="\x9b31m\x85\u202e").decode()
    evil = json.dumps(json.loads(evil), ensure_ascii=False)
    await through(settings, [arrival(evil.encode()), arrival("<x \x9b31m".encode(), at=1)])
    (dead_letter,) = (await admin(settings, "dead", "list", "--json")).lines
    for arguments in (
        ["show", "T-1", "--json", "--raw"],
        ["events", "--since", "1h", "--limit", "1", "--json", "--raw"],
        ["dead", "list", "--json"],
        ["dead", "show", dead_letter["id"], "--json", "--raw"],
        ["dead", "show", dead_letter["id"], "--raw"],
        ["dead", "export", "-"],
    ):
        ran = await admin(settings, *arguments)
        assert ran.out
        assert all(each.isprintable() or each == "\n" for each in ran.out), arguments


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
    await through(settings, *batches)
    before = await everything(settings)
    events = (await admin(settings, "events", "--since", "1h", "--limit", "1")).out
    assert events
    async with redis.Redis.from_url(settings.redis_url) as client:
        await client.flushdb()
    dry = (await admin(settings, "rebuild", "--dry-run", "--json")).lines[0]
    assert await everything(settings) == {}
    ran = await admin(settings, "rebuild", "--json")
    (summary,) = ran.lines
    assert await everything(settings) == before
    assert summary["finished"]
    assert summary["batches"] == dry["batches"] == len(batches)
    assert summary["postbacks"] == len(arrivals)
    assert summary["undecodable"] == 20
    assert summary["records"] == 1000
    assert summary["new"] + summary["duplicates"] + summary["undecodable"] == len(arrivals)
    again = (await admin(settings, "rebuild", "--json")).lines[0]
    assert (again["new"], again["events"]) == (0, 0)
    assert await everything(settings) == before


async def test_rebuild_emits_what_only_the_archive_saw(settings: Settings) -> None:
    await through(settings, [SENT, FAILED])
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
    await through(settings, [SENT, FAILED])
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


async def test_rebuild_keeps_what_only_the_archive_saw_and_nobody_can_decode(
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


@pytest.mark.parametrize(
    "arguments",
    [
        ["events", "--limit", "1"],
        ["events", "--since", "1h", "--limit", "1"],
        ["dead", "list"],
        ["dead", "show", "0123456789ab"],
        ["dead", "export", "-"],
        ["dead", "replay", "--dry-run"],
        ["rebuild", "--dry-run"],
    ],
    ids=" ".join,
)
async def test_commands_that_only_read_declare_nothing(
    settings: Settings, rabbit: RabbitMQ, arguments: list[str]
) -> None:
    ran = await admin(settings, *arguments)
    assert ran.status == 2
    assert "start an mms-ingest or mms-worker" in ran.err
    assert ran.err.count("\n") == 1
    for kind in ("queues", "exchanges"):
        assert "mms." not in rabbit.ctl(f"list_{kind}", "name")


async def test_a_record_that_dropped_some_is_rebuilt_as_it_was(settings: Settings) -> None:
    """More postbacks than a record keeps, then the same archive once and twice more."""
    many = [arrival(body("T-1", "N101", "Sent", handset=f"Phone {n}"), at=n) for n in range(100)]
    await through(settings, many)
    before = await everything(settings)
    for _ in range(2):
        again = (await admin(settings, "rebuild", "--json")).lines[0]
        assert (again["new"], again["duplicates"]) == (0, 100)
        assert await everything(settings) == before
    async with redis.Redis.from_url(settings.redis_url) as client:
        await client.flushdb()
    await admin(settings, "rebuild", "--json")
    assert await everything(settings) == before


async def test_silence_is_not_the_end_of_the_archive(
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

    await through(settings, [SENT], [DELIVERED])
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
    await through(settings, [SENT])
    await asyncio.sleep(1.1)  # RabbitMQ takes whole seconds
    summary = (await admin(settings, "rebuild", "--since", "0s", "--json")).lines[0]
    assert (summary["batches"], summary["finished"]) == (0, True)
    summary = (await admin(settings, "rebuild", "--since", "1h", "--json")).lines[0]
    assert summary["batches"] == 1


@pytest.mark.parametrize("command", ["show", "events", "rebuild", "dead list", "dead replay"])
async def test_help_teaches_by_examples(settings: Settings, command: str) -> None:
    ran = await admin(settings, *command.split(), "--help")
    assert f"mms-admin {command}" in ran.out
