"""The limits of a body: size, time and encoding, over a real socket."""

import asyncio
import contextlib
import gzip
import time
import zlib
from collections.abc import Callable

import msgspec
import pytest

from ingest.http import connections
from shared.settings.settings import Settings
from shared.settings.sources import Rule
from shared.settings.units import Bytes, Names
from tests.support.answering import answering

HEAD = b"POST /postbacks HTTP/1.1\r\nHost: x\r\n"
LIMITED = Settings(max_body=Bytes(2048))
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}


def chunked(body: bytes, size: int = 500) -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize(("size", "status"), [(2048, b"200"), (2049, b"413"), (10**6, b"413")])
async def test_a_chunked_body(size: int, status: bytes) -> None:
    head = b"POST /postbacks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    async with answering(LIMITED) as server:
        response = await server.says(
            head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"x" * size)
        )
        assert response.split()[1] == status


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_compressed_body(coding: str) -> None:
    compress = COMPRESSORS[coding]
    async with answering(LIMITED) as server:
        assert await server.status(body=compress(b"x" * 2048), Content_Encoding=coding) == 200
        assert server.arrivals[0].body == b"x" * 2048
        assert await server.status(body=compress(b"x" * 2049), Content_Encoding=coding) == 413
        assert await server.status(body=compress(b"x" * 99)[:-1], Content_Encoding=coding) == 400
        assert await server.status(body=b"plain", Content_Encoding=coding) == 400
        assert await server.status(body=compress(b""), Content_Encoding=coding) == 400
        assert await server.status(body=b"x", Content_Encoding="br") == 415
        assert len(server.arrivals) == 1


async def test_codings_in_several_headers_are_one_list() -> None:
    compressed = gzip.compress(gzip.compress(b"x"))
    head = b"POST /postbacks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    for names in (b"gzip", b"gzip"), (b"identity", b"gzip"):
        codings = b"".join(b"Content-Encoding: %s\r\n" % coding for coding in names)
        async with answering(LIMITED) as server:
            response = await server.says(
                head + codings + b"Content-Length: %d\r\n\r\n" % len(compressed) + compressed
            )
            assert response.split()[1] == b"415"
            assert not server.arrivals


async def test_bombs_cost_little() -> None:
    """Each has 60 MB when decompressed, which would take seconds."""
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


async def test_a_slow_body_gets_408_and_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.http.server.RESPONSE_LIMIT", 0.3)
    monkeypatch.setattr(connections, "DISCARD_LIMIT", 1.0)
    async with answering(LIMITED) as server:
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /postbacks HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n")
        answer = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
        await _write_until_done(writer, answer)
        assert b" 408 " in await answer
        end = asyncio.create_task(reader.read())
        await _write_until_done(writer, end)
        with contextlib.suppress(ConnectionResetError):  # closing with unread bytes causes it
            await end
        assert time.monotonic() - began < 3
        writer.close()


async def _write_until_done(writer: asyncio.StreamWriter, task: asyncio.Task[bytes]) -> None:
    """Send a byte now and then until the task is done, for at most 5 s."""
    async with asyncio.timeout(5):
        while not task.done():
            writer.write(b"x")
            await asyncio.wait([task], timeout=0.05)


@pytest.mark.parametrize(
    "rest", [b"Content-Length: 9\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc"]
)
async def test_a_client_that_disconnects_in_a_body_is_not_an_error(
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


async def test_a_malformed_chunk_gets_400(caplog: pytest.LogCaptureFixture) -> None:
    head = b"POST /postbacks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with answering(LIMITED) as server:
        for rest in (b"zz\r\nabc\r\n", b"3\r\nabcdef\r\n"):
            assert (await server.says(head + rest)).split()[1] == b"400"
        assert not server.arrivals
    assert not caplog.records


async def test_expect_100_continue() -> None:
    """The server asks for the body only when the request is allowed."""
    expects = HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    settings = msgspec.structs.replace(
        LIMITED, sources=Names(("default", "t")), rules={"t": Rule(token=("x" * 20,))}
    )
    async with answering(settings) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for _ in range(2):
            writer.write(expects % 4)
            async with asyncio.timeout(2):
                assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"body")
            async with asyncio.timeout(2):
                assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(expects % 4 + b"body")  # without waiting for 100
        async with asyncio.timeout(2):
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        writer.close()
        for request, status in (
            (expects % 2049, b"413"),
            ((expects % 4).replace(b"/postbacks", b"/x"), b"404"),
            ((expects % 4).replace(b"/postbacks", b"/postbacks/t/y"), b"403"),
        ):
            response = await server.says(request)
            assert response.split()[1] == status
            assert b"\r\nConnection: close\r\n" in response
            assert b"100 Continue" not in response
        assert [arrival.body for arrival in server.arrivals] == [b"body"] * 3


async def test_a_client_that_stops_sending_a_refused_body_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The server is discarding the rest of the body when the client stops."""
    async with answering(LIMITED) as server:
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
            async with asyncio.timeout(5):
                assert b" 404 " in await reader.readuntil(b"\r\n\r\n")
                writer.write_eof()
                await reader.read()
            writer.close()
        assert not server.complaints
    assert not caplog.records
