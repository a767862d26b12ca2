"""Reading dead letters changes neither their number nor their order, for any reader."""

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from deploy.local.servers import RabbitMQ
from shared.postback.dead_letter import Reason
from shared.postback.envelope import Arrival
from shared.rabbitmq.session import open_session
from shared.settings.settings import Settings
from shared.settings.units import Bytes
from tests.support import running
from tests.support.admin import admin, arrival, opened, publish_dead_letters, start
from workers.admin.dead.browse import browse

COUNT = 350
"""More dead letters than one consumer receives, see `browse.WINDOW`."""


def postbacks(count: int = COUNT) -> list[Arrival]:
    return [arrival(b"<x %d" % number, at=number) for number in range(count)]


async def bodies_in_order(settings: Settings) -> list[bytes]:
    """The bodies of all dead letters, as `browse` reads them."""
    async with browse(settings) as browser:
        return [held.dead_letter.body async for held in browser.dead_letters()]


async def test_reading_thirty_times_loses_and_reorders_nothing(settings: Settings) -> None:
    """RabbitMQ 4 removes what was delivered 20 times from a quorum queue without a limit."""
    sent = postbacks()
    async with opened(settings) as session:
        await publish_dead_letters(session, sent, Reason.MALFORMED)
    for _ in range(30):
        assert await bodies_in_order(settings) == [each.body for each in sent]


async def test_list_show_and_export_only_read(settings: Settings, tmp_path: Path) -> None:
    sent = postbacks(40)
    async with opened(settings) as session:
        await publish_dead_letters(session, sent, Reason.MALFORMED)
    listed = (await admin(settings, "dead", "list", "--json")).lines
    assert (await admin(settings, "dead", "show", listed[7]["id"])).status == 0
    assert (await admin(settings, "dead", "export", str(tmp_path / "dead.jsonl"))).status == 0
    assert await bodies_in_order(settings) == [each.body for each in sent]


async def test_a_reader_that_fails_requeues_in_order(settings: Settings) -> None:
    sent = postbacks()
    async with opened(settings) as session:
        await publish_dead_letters(session, sent, Reason.MALFORMED)

    async def fail() -> None:
        async with browse(settings) as browser:
            seen = 0
            async for _ in browser.dead_letters():
                seen += 1
                if seen == COUNT - 3:
                    raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        await fail()
    assert await bodies_in_order(settings) == [each.body for each in sent]


LOST_DURING_A_CALL = """
import asyncio
import aiormq

async def rejected(self, *_, **__):
    raise {error}

aiormq.Channel.basic_cancel = rejected
"""
"""The errors of aiormq for a waiting call when the connection is lost."""


@pytest.mark.parametrize("error", ["Exception", "asyncio.CancelledError", "EOFError"])
@pytest.mark.parametrize("arguments", [["list"], ["export", "FILE"], ["replay"]], ids=" ".join)
async def test_a_connection_lost_during_a_call_prints_one_line(
    settings: Settings, tmp_path: Path, arguments: list[str], error: str
) -> None:
    sent = postbacks(120)
    async with opened(settings) as session:
        await publish_dead_letters(session, sent, Reason.MALFORMED)
    file = tmp_path / "dead.jsonl"
    file.write_text("precious")
    words = [str(file) if each == "FILE" else each for each in arguments]
    ran = await admin(settings, "dead", *words, before=LOST_DURING_A_CALL.format(error=error))
    assert ran.status == 2
    assert ran.err.count("\n") == 1
    assert ran.err.startswith("mms-admin: cannot stop reading mms.dead")
    assert file.read_text() == "precious"
    assert sorted(await bodies_in_order(settings)) == sorted(each.body for each in sent)


LOST_AFTER_TWO = """
from workers.admin.dead.browse import Browser

remove, removed = Browser.remove, []

async def remove_two(browser, held):
    if len(removed) == 2:
        await browser._count()  # answered after the two removals
        await browser.session.connection.close()
    await remove(browser, held)
    removed.append(held)

Browser.remove = remove_two
"""


async def test_a_purge_that_loses_its_connection_prints_how_many_it_removed(
    settings: Settings,
) -> None:
    async with opened(settings) as session:
        await publish_dead_letters(session, postbacks(5), Reason.MALFORMED)
    lost = await admin(settings, "dead", "purge", "--yes", before=LOST_AFTER_TWO)
    assert (lost.status, lost.out) == (2, "")
    error, removed = lost.err.splitlines()
    assert error.startswith("mms-admin: cannot acknowledge")
    assert removed == "up to 2 dead letters were removed before that"
    assert len(await bodies_in_order(settings)) == 3


async def test_readers_at_the_same_time_see_all(settings: Settings) -> None:
    async with opened(settings) as session:
        await publish_dead_letters(session, postbacks(), Reason.MALFORMED)
    readers = await asyncio.gather(*(admin(settings, "dead", "list", "--json") for _ in range(3)))
    assert [len(ran.lines) for ran in readers] == [COUNT] * 3


async def test_a_second_reader_waits_for_the_first(settings: Settings) -> None:
    async with opened(settings) as session:
        await publish_dead_letters(session, postbacks(3), Reason.MALFORMED)
    async with browse(settings) as browser:
        async for _ in browser.dead_letters():
            second = await start(settings, "dead", "list", "--json")
            assert second.stderr is not None
            async with asyncio.timeout(30):
                while b"waiting" not in await second.stderr.readline():
                    assert second.returncode is None
            break
    out, _ = await second.communicate()
    assert len(out.splitlines()) == 3


async def test_a_full_queue_drops_its_oldest_and_stops_no_worker(settings: Settings) -> None:
    """After more dead letters than `mms.dead` holds, an ordinary postback is still processed."""
    small = msgspec.structs.replace(settings, queue_max_bytes=Bytes(200_000))
    async with (
        running.worker(small),
        running.ingest(running.beside(small)),
        running.subscriber(small) as subscriber,
    ):
        for number in range(60):
            await running.post(small, b"<%d " % number + b"x" * 10_000)
        good = {"origin": "MMS_MT", "code": "N102", "status": "Delivered", "tracking-id": "T-1"}
        await running.post(small, json.dumps(good).encode())
        assert (await subscriber.event()).subject == "T-1"
    kept = [int(body[1:].split()[0]) for body in await bodies_in_order(small)]
    assert kept == list(range(60 - len(kept), 60))
    assert 1 < len(kept) < 40


async def test_every_quorum_queue_has_a_delivery_limit(
    settings: Settings, rabbit: RabbitMQ
) -> None:
    """Otherwise RabbitMQ 4 uses its default, 20."""
    session = await open_session(settings, name="test")
    await session.close()
    rows = rabbit.ctl("list_queues", "name", "type", "arguments").splitlines()
    ours = [row for row in rows if row.startswith("mms.") and "\tquorum\t" in row]
    assert len(ours) == 2
    assert all("x-delivery-limit" in row for row in ours)
