"""`mms-admin` as a process of its own, on a real RabbitMQ and a real Redis."""

import asyncio
import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from deploy.local.servers import RabbitMQ
from shared.postback import envelope
from shared.postback.dead_letter import Reason
from shared.rabbitmq import topology
from shared.rabbitmq.session import open_session
from shared.settings.settings import Settings
from tests.support.admin import (
    DELIVERED,
    FAILED,
    SENT,
    admin,
    arrival,
    body,
    input_bodies,
    opened,
    publish,
    publish_and_process,
    publish_dead_letters,
    start,
)


async def test_show_lists_what_each_postback_changed(settings: Settings) -> None:
    await publish_and_process(settings, [SENT], [FAILED], [DELIVERED])
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


async def test_show_of_an_unknown_message(settings: Settings) -> None:
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
    await publish_and_process(settings, [SENT, FAILED], [DELIVERED])
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
        await publish_and_process(
            settings, [arrival(body(f"T-{number}", "N103", "x"))], [arrival(failed)]
        )
        await asyncio.sleep(0.1)
    out, _ = await following
    assert b"mms.message.failed" in out
    assert b"expired" not in out.split(b"corrects")[0]


async def test_dead_letters_are_listed_and_shown_masked_and_escaped(settings: Settings) -> None:
    evil = arrival(b"<x>\x1b[31m +15550001111", source="acme")
    unknown = arrival(body("T-1", "X999", "what"), at=1)
    await publish_and_process(settings, [SENT, evil, unknown])
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
        await publish_dead_letters(session, [DELIVERED], Reason.UNKNOWN_CODE)
        await publish_dead_letters(session, [arrival(b"<x", source="acme")], Reason.MALFORMED)
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
        await publish_dead_letters(session, buried, Reason.UNKNOWN_CODE)
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
        await publish_dead_letters(
            session, [arrival(b"<x"), arrival(b"\xff\x00", at=1)], Reason.MALFORMED
        )
        await publish_dead_letters(session, [DELIVERED], Reason.UNKNOWN_CODE)
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
    await publish_and_process(settings, [arrival(private)])
    for arguments in (["show", "T-1"], ["events", "--since", "1h", "--limit", "1"]):
        for more in ([], ["--json"]):
            out = (await admin(settings, *arguments, *more)).out
            assert "T-1" in out
            assert "000" not in out.replace("000000", "").replace(".000", "")
            assert "Jo" not in out


async def test_control_characters_are_printed_as_escapes(settings: Settings) -> None:
    evil = body("T-1", "N102", "Delivered", handset="\x9b31m\x85\u202e").decode()
    evil = json.dumps(json.loads(evil), ensure_ascii=False)
    await publish_and_process(
        settings, [arrival(evil.encode()), arrival("<x \x9b31m".encode(), at=1)]
    )
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


@pytest.mark.parametrize("command", ["show", "events", "rebuild", "dead list", "dead replay"])
async def test_help_shows_examples(settings: Settings, command: str) -> None:
    ran = await admin(settings, *command.split(), "--help")
    assert f"mms-admin {command}" in ran.out
