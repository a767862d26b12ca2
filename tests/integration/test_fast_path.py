"""The fast path responds as the slow path does: in order, and once to each request."""

import asyncio
import base64
import contextlib
import random
from collections.abc import AsyncIterator, Callable

import pytest

from deploy.local.ports import HOST
from ingest.http import connections
from shared.settings import password
from shared.settings.settings import Settings
from shared.settings.sources import BasicAuthUser, Rule
from tests.support.answering import BATCH, TIME_LIMIT, Answering, answering

POST = "POST /postbacks HTTP/1.1\r\nHost: x\r\n"


def post(body: str, *headers: str) -> bytes:
    lines = "".join(f"{each}\r\n" for each in headers)
    return f"{POST}{lines}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def chunked(number: int) -> bytes:
    chunk = f"{len(str(number)):x}\r\n{number}\r\n0\r\n\r\n"
    return f"{POST}Transfer-Encoding: chunked\r\n\r\n{chunk}".encode()


class Client:
    """One connection that stays open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def response(self) -> tuple[int, dict[str, str], bytes]:
        """The next response: status, headers, body."""
        async with asyncio.timeout(TIME_LIMIT):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            status, *lines = head.rstrip().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines)
            body = await self.reader.readexactly(int(headers["Content-Length"]))
        return int(status.split()[1]), headers, body

    async def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        self.writer.write(request)
        return await self.response()

    async def ended(self) -> bool:
        """Whether the server closes the connection without another response."""
        async with asyncio.timeout(TIME_LIMIT):
            return await self.reader.read() == b""


@contextlib.asynccontextmanager
async def client(server: Answering) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(HOST, server.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


def usual_path(server: Answering) -> int:
    """Requests on the slow path: aiohttp counts only those."""
    return server.connections.requests_count


async def until_committed(server: Answering, count: int) -> None:
    async with asyncio.timeout(TIME_LIMIT):
        while len(server.arrivals) < count:
            await asyncio.sleep(0.01)


async def test_both_paths_respond_alike() -> None:
    async with answering(Settings()) as server, client(server) as caller:
        fast = await caller.ask(post("first"))
        assert usual_path(server) == 0
        usual = await caller.ask(post("second", "Content-Encoding: identity"))
        assert usual_path(server) == 1
    assert fast[0] == usual[0] == 200
    assert fast[1].keys() == usual[1].keys() - {"Content-Type"}
    assert fast[1]["Correlation-Id"] == usual[1]["Correlation-Id"] == BATCH
    assert fast[1]["Server"] == usual[1]["Server"]
    assert [arrival.body for arrival in server.arrivals] == [b"first", b"second"]


async def test_requests_in_any_pieces_are_answered_in_order() -> None:
    """Some for each path, some refused; more than aiohttp lets wait at once."""
    chance = random.Random(7)
    kinds: dict[str, tuple[Callable[[int], bytes], int]] = {
        "fast": (lambda number: post(f"{number}"), 200),
        "chunked": (chunked, 200),
        "usual": (lambda number: post(f"{number}", "Content-Encoding: identity"), 200),
        "empty": (lambda _: post(""), 400),
        "get": (lambda _: b"GET /postbacks HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        "nowhere": (lambda _: post("x").replace(b"/postbacks", b"/x"), 404),
    }
    for _ in range(20):
        asked = [kinds[chance.choice(list(kinds))] for _ in range(chance.randrange(1, 120))]
        stream = b"".join(render(number) for number, (render, _) in enumerate(asked))
        async with answering(Settings()) as server, client(server) as caller:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_written(caller, stream, chance))
                statuses = [(await caller.response())[0] for _ in asked]
            assert statuses == [status for _, status in asked]
            wanted = [b"%d" % number for number, (_, status) in enumerate(asked) if status == 200]
            assert [arrival.body for arrival in server.arrivals] == wanted
            assert server.complaints == []


async def _written(caller: Client, stream: bytes, chance: random.Random) -> None:
    while stream:
        cut = chance.choice((1, 10, 100, 1000, 10_000))
        caller.writer.write(stream[:cut])
        await caller.writer.drain()
        await asyncio.sleep(0)
        stream = stream[cut:]


@pytest.mark.parametrize("header", [(), ("Connection: close",)])
async def test_a_client_that_disconnects_early_does_not_affect_others(
    header: tuple[str, ...],
) -> None:
    durable = asyncio.Event()
    async with answering(Settings(), durable) as server:
        async with client(server) as caller:
            caller.writer.write(post("gone", *header))
            await caller.writer.drain()
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.1)
        async with client(server) as other:
            durable.set()
            assert (await other.ask(post("here")))[0] == 200
        await until_committed(server, 2)
        assert {arrival.body for arrival in server.arrivals} == {b"gone", b"here"}
    assert server.complaints == []
    assert usual_path(server) == 0


async def test_connection_close_closes_the_connection() -> None:
    async with answering(Settings()) as server, client(server) as caller:
        status, headers, _ = await caller.ask(post("last", "Connection: close"))
        assert (status, headers["Connection"]) == (200, "close")
        assert await caller.ended()
        assert [arrival.body for arrival in server.arrivals] == [b"last"]


async def test_a_stop_waits_for_responses_and_closes_idle_connections() -> None:
    durable = asyncio.Event()
    async with (
        answering(Settings(), durable) as server,
        client(server) as idle,
        client(server) as caller,
        asyncio.TaskGroup() as tasks,
    ):
        assert (await idle.ask(post("", "Content-Encoding: identity")))[0] == 400
        caller.writer.write(post("waits"))
        await asyncio.sleep(0.1)
        server.connections.pre_shutdown()
        stopping = tasks.create_task(server.connections.shutdown(5))
        assert await idle.ended()
        assert not stopping.done()
        durable.set()
        assert (await caller.response())[0] == 200
        assert await caller.ended()
    assert server.complaints == []


async def test_the_idle_limit_does_not_count_the_time_for_a_response(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "IDLE_LIMIT", 0.3)
    durable = asyncio.Event()
    async with answering(Settings(), durable) as server, client(server) as caller:
        caller.writer.write(post("waits"))
        await asyncio.sleep(0.7)
        durable.set()
        assert (await caller.response())[0] == 200
        assert (await caller.ask(post("again")))[0] == 200
        assert await caller.ended()
    assert usual_path(server) == 0


async def test_a_known_password_takes_the_fast_path() -> None:
    token = "6ZbQ-9.x_Ltoken~0123"
    rule = Rule(token=(token,), basic=(BasicAuthUser(b"mms", password.hashed(b"open sesame")),))
    login = base64.b64encode(b"mms:open sesame").decode()
    right = post("in", f"Authorization: Basic {login}")
    right = right.replace(b"/postbacks", f"/postbacks/default/{token}".encode())
    async with answering(Settings(rules={"default": rule})) as server, client(server) as caller:
        assert (await caller.ask(right))[0] == 200
        assert usual_path(server) == 1  # the first check of a password takes long
        for _ in range(3):
            assert (await caller.ask(right))[0] == 200
        assert usual_path(server) == 1
        assert (await caller.ask(right.replace(b"Basic", b"basic x")))[0] == 401
        assert (await caller.ask(post("out")))[0] == 403
        assert usual_path(server) == 3
    assert [arrival.body for arrival in server.arrivals] == [b"in"] * 4


async def test_the_rate_limit_is_charged_once_for_each_request() -> None:
    settings = Settings(rules={"default": Rule(rate=10)})
    async with answering(settings) as server, client(server) as caller:
        caller.writer.write(post("x") * 30)
        statuses = [(await caller.response())[0] for _ in range(30)]
    assert 10 <= statuses.count(200) <= 12
    assert statuses.count(200) + statuses.count(429) == 30
