"""Looking at dead letters changes nothing: not their number, not their order, for nobody else."""

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
from tests.integration.test_admin_commands import admin, arrival, bury, opened, start
from tests.support import running
from workers.admin.dead.browse import browse

COUNT = 350
"""More than one consumer gets, see `browse.WINDOW`."""


def postbacks(count: int = COUNT) -> list[Arrival]:
    return [arrival(b"<x %d" % number, at=number) for number in range(count)]


async def looked_at(settings: Settings) -> list[bytes]:
    """The bodies of all dead letters in their order, as a pass over them sees them."""
    async with browse(settings) as browser:
        return [held.dead_letter.body async for held in browser.dead_letters()]


async def test_thirty_looks_neither_lose_nor_reorder(settings: Settings) -> None:
    """RabbitMQ 4 removes what was delivered 20 times from a quorum queue without a limit."""
    sent = postbacks()
    async with opened(settings) as session:
        await bury(session, sent, Reason.MALFORMED)
    for _ in range(30):
        assert await looked_at(settings) == [each.body for each in sent]


async def test_list_show_and_export_look_only(settings: Settings, tmp_path: Path) -> None:
    sent = postbacks(40)
    async with opened(settings) as session:
        await bury(session, sent, Reason.MALFORMED)
    listed = (await admin(settings, "dead", "list", "--json")).lines
    assert (await admin(settings, "dead", "show", listed[7]["id"])).status == 0
    assert (await admin(settings, "dead", "export", str(tmp_path / "dead.jsonl"))).status == 0
    assert await looked_at(settings) == [each.body for each in sent]


async def test_a_reader_that_fails_returns_them_in_order(settings: Settings) -> None:
    sent = postbacks()
    async with opened(settings) as session:
        await bury(session, sent, Reason.MALFORMED)

    async def fail() -> None:
        async with browse(settings) as browser:
            seen = 0
            async for _ in browser.dead_letters():
                seen += 1
                if seen == COUNT - 3:
                    raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        await fail()
    assert await looked_at(settings) == [each.body for each in sent]


LOST_DURING_A_CALL = """
import asyncio
import aiormq

async def rejected(self, *_, **__):
    raise {error}

aiormq.Channel.basic_cancel = rejected
"""
"""What aiormq raises for a call that waits when the connection is lost."""


@pytest.mark.parametrize("error", ["Exception", "asyncio.CancelledError", "EOFError"])
@pytest.mark.parametrize("arguments", [["list"], ["export", "FILE"], ["replay"]], ids=" ".join)
async def test_a_connection_that_is_lost_during_a_call_is_one_line(
    settings: Settings, tmp_path: Path, arguments: list[str], error: str
) -> None:
    sent = postbacks(120)
    async with opened(settings) as session:
        await bury(session, sent, Reason.MALFORMED)
    file = tmp_path / "dead.jsonl"
    file.write_text("precious")
    given = [str(file) if each == "FILE" else each for each in arguments]
    ran = await admin(settings, "dead", *given, before=LOST_DURING_A_CALL.format(error=error))
    assert ran.status == 2
    assert ran.err.count("\n") == 1
    assert ran.err.startswith("mms-admin: cannot stop reading mms.dead")
    assert file.read_text() == "precious"
    assert sorted(await looked_at(settings)) == sorted(each.body for each in sent)


LOST_AFTER_TWO = """
from workers.admin.dead.browse import Browser

remove, removed = Browser.remove, []

async def remove_two(browser, held):
    if len(removed) == 2:
        await browser._count()  # RabbitMQ has done what it was asked before
        await browser.session.connection.close()
    await remove(browser, held)
    removed.append(held)

Browser.remove = remove_two
"""


async def test_a_purge_that_loses_its_connection_says_how_many_it_had_removed(
    settings: Settings,
) -> None:
    async with opened(settings) as session:
        await bury(session, postbacks(5), Reason.MALFORMED)
    lost = await admin(settings, "dead", "purge", "--yes", before=LOST_AFTER_TWO)
    assert (lost.status, lost.out) == (2, "")
    error, removed = lost.err.splitlines()
    assert error.startswith("mms-admin: cannot acknowledge")
    assert removed == "up to 2 dead letters were removed before that"
    assert len(await looked_at(settings)) == 3


async def test_two_at_once_both_see_all(settings: Settings) -> None:
    async with opened(settings) as session:
        await bury(session, postbacks(), Reason.MALFORMED)
    both = await asyncio.gather(*(admin(settings, "dead", "list", "--json") for _ in range(3)))
    assert [len(ran.lines) for ran in both] == [COUNT] * 3


async def test_a_second_one_waits_for_the_first(settings: Settings) -> None:
    async with opened(settings) as session:
        await bury(session, postbacks(3), Reason.MALFORMED)
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


async def test_a_full_queue_drops_its_oldest_and_stops_nobody(settings: Settings) -> None:
    """More dead letters than `mms.dead` holds; then an ordinary postback gets through."""
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
    kept = [int(body[1:].split()[0]) for body in await looked_at(small)]
    assert kept == list(range(60 - len(kept), 60))
    assert 1 < len(kept) < 40


async def test_every_quorum_queue_has_a_delivery_limit(
    settings: Settings, rabbit: RabbitMQ
) -> None:
    """RabbitMQ 4 has one of its own, 20."""
    session = await open_session(settings, name="test")
    await session.close()
    rows = rabbit.ctl("list_queues", "name", "type", "arguments").splitlines()
    ours = [row for row in rows if row.startswith("mms.") and "\tquorum\t" in row]
    assert len(ours) == 2
    assert all("x-delivery-limit" in row for row in ours)
