"""What a sender may cost: size, time and number, over a real socket."""

import asyncio
import contextlib
import gzip
import resource
import time
import zlib
from collections.abc import Callable

import msgspec
import pytest

from ingest import connections
from ingest.connections import MAX_HEADERS, MAX_LINE
from shared.settings import Bytes, Settings
from tests.integration.answering import answering

LIMITED = Settings(max_body=Bytes(2048))
PACKERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}


def chunked(body: bytes, size: int = 500) -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize(("size", "status"), [(2048, b"200"), (2049, b"413"), (10**6, b"413")])
async def test_a_chunked_body(size: int, status: bytes) -> None:
    head = b"POST /postbacks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    async with answering(LIMITED) as server:
        answer = await server.says(
            head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"x" * size)
        )
        assert answer.split()[1] == status


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_packed_body(coding: str) -> None:
    pack = PACKERS[coding]
    async with answering(LIMITED) as server:
        assert await server.status(body=pack(b"x" * 2048), Content_Encoding=coding) == 200
        assert server.arrivals[0].body == b"x" * 2048
        assert await server.status(body=pack(b"x" * 2049), Content_Encoding=coding) == 413
        assert await server.status(body=pack(b"x" * 99)[:-1], Content_Encoding=coding) == 400
        assert await server.status(body=b"plain", Content_Encoding=coding) == 400
        assert await server.status(body=pack(b""), Content_Encoding=coding) == 400
        assert await server.status(body=b"x", Content_Encoding="br") == 415
        assert len(server.arrivals) == 1


async def test_bombs_cost_next_to_nothing() -> None:
    """Each would be 60 MB; unpacked, they would take seconds."""
    bomb = gzip.compress(bytes(60_000_000))
    assert len(bomb) < 65536
    async with answering(Settings()) as server:
        began = time.process_time()
        for _ in range(20):
            assert await server.status(body=bomb, Content_Encoding="gzip") == 413
        large = gzip.compress(bytes(60_000_000)) * 20
        assert await server.status(body=large, Content_Encoding="gzip") == 413
        assert time.process_time() - began < 2
        assert not server.arrivals


async def test_slow_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADERS_LIMIT", 0.3)
    monkeypatch.setattr(connections, "_LOOK_EVERY", 0.1)
    async with answering(LIMITED) as server:
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /postbacks HTTP/1.1\r\n")
        closed = asyncio.create_task(reader.read())
        while not closed.done() and time.monotonic() - began < 5:
            writer.write(b"X-A: b\r\n")
            await asyncio.wait([closed], timeout=0.05)
        assert closed.done()
        assert isinstance(closed.exception(), ConnectionResetError) or closed.result() == b""
        assert 0.3 < time.monotonic() - began < 2
        writer.close()


async def test_an_idle_connection_is_not_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is one whose bodies come in pieces, after their headers."""
    monkeypatch.setattr(connections, "HEADERS_LIMIT", 0.2)
    monkeypatch.setattr(connections, "_LOOK_EVERY", 0.05)
    async with answering(LIMITED) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for _ in range(3):
            writer.write(b"POST /postbacks HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
            for piece in (b"ab", b"cd"):
                await asyncio.sleep(0.1)
                writer.write(piece)
            async with asyncio.timeout(5):
                assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.5)
        writer.close()
        assert len(server.arrivals) == 3


async def test_a_slow_body_gets_408_and_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.server.ANSWER_LIMIT", 0.3)
    monkeypatch.setattr(connections, "LINGER", 1.0)
    async with answering(LIMITED) as server:
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /postbacks HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n")
        answer = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
        await _write_until_done(writer, answer)
        assert b" 408 " in await answer
        end = asyncio.create_task(reader.read())
        await _write_until_done(writer, end)
        with contextlib.suppress(ConnectionResetError):  # which closing with unread bytes causes
            await end
        assert time.monotonic() - began < 3
        writer.close()


async def _write_until_done(writer: asyncio.StreamWriter, what: asyncio.Task[bytes]) -> None:
    """Send a byte now and then until `what` is done, for 5 s at most."""
    async with asyncio.timeout(5):
        while not what.done():
            writer.write(b"x")
            await asyncio.wait([what], timeout=0.05)


@pytest.mark.parametrize(
    "rest", [b"Content-Length: 9\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc"]
)
async def test_who_leaves_in_the_middle_of_a_body_is_no_error(
    rest: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with answering(LIMITED) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /postbacks HTTP/1.1\r\nHost: x\r\n" + rest)
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.close()
        await asyncio.sleep(0.1)
        assert not server.connections.connections
        assert not server.arrivals
        assert not server.complaints
    assert not caplog.records


async def test_a_chunk_that_is_none_gets_400(caplog: pytest.LogCaptureFixture) -> None:
    head = b"POST /postbacks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with answering(LIMITED) as server:
        for rest in (b"zz\r\nabc\r\n", b"3\r\nabcdef\r\n"):
            assert (await server.says(head + rest)).split()[1] == b"400"
        assert not server.arrivals
    assert not caplog.records


async def test_connections() -> None:
    async with answering(msgspec.structs.replace(LIMITED, max_connections=3)) as server:
        held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
        assert await server.post() == b""
        for _, writer in held:
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(0.1)
        assert await server.status() == 200


def test_room_for_connections() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
        assert connections.make_room(100) == 512
        room = connections.make_room(1000)
        assert room == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert room == min(1000 + connections.SPARE_FILES, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_in_flight() -> None:
    """More than MMS_MAX_WAITING postbacks that wait for their durable answer."""
    durable = asyncio.Event()
    settings = msgspec.structs.replace(LIMITED, max_waiting=2)
    async with answering(settings, durable) as server:
        answers = [asyncio.create_task(server.post()) for _ in range(12)]
        done, _ = await asyncio.wait(answers, timeout=0.5)
        assert len(done) >= 12 - 2 - 4  # two wait, two commits are under way
        for answer in done:
            assert b" 503 " in await answer
            assert b"\r\nRetry-After: " in await answer
        durable.set()
        statuses = [(await answer).split()[1] for answer in answers]
        assert statuses.count(b"200") == 12 - len(done) == len(server.arrivals)


@pytest.mark.parametrize(
    "head",
    [
        b"POST /postbacks/" + b"x" * (MAX_LINE + 100) + b" HTTP/1.1\r\nHost: x\r\n",
        b"POST /postbacks HTTP/1.1\r\nX: " + b"x" * (MAX_LINE + 100) + b"\r\n",
        b"POST /postbacks HTTP/1.1\r\n" + b"X: x\r\n" * (MAX_HEADERS + 1),
        b"POST /postbacks HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        b"POST /postbacks HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
        b"POST /postbacks HTTP/9\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",  # TLS
    ],
)
async def test_headers_that_are_too_much_or_none(
    head: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with answering(LIMITED) as server:
        answer = await server.says(head + b"Connection: close\r\n\r\nx")
        assert answer.split()[1] == b"400"
        assert not server.arrivals
        assert not server.complaints
    assert not caplog.records  # it would hold what was sent
