"""The limits of connections and headers: size, time and number, over a real socket."""

import asyncio
import contextlib
import re
import resource
import socket
import ssl
import time

import msgspec
import pytest
from aiohttp.web_protocol import RequestHandler

from ingest.http import connection as connection_module
from ingest.http import connections, tls_handshake
from ingest.http.connection import Connection
from ingest.http.connections import MAX_HEADERS, MAX_LINE
from ingest.http.fast_path import MAX_READ_AHEAD
from shared.process.tls import server_context
from shared.settings.settings import Settings
from shared.settings.units import Bytes
from tests.support.answering import SLOW, answering
from tests.support.certificates import Authority, Signed

HEAD = b"POST /postbacks HTTP/1.1\r\nHost: x\r\n"
ONE_READ = 256 * 1024
LIMITED = Settings(max_body=Bytes(2048))


async def test_slow_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "HEADERS_LIMIT", 0.3)
    monkeypatch.setattr(connections, "SWEEP_INTERVAL", 0.1)
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
    """Nor is a connection whose bodies come in pieces, after their headers."""
    monkeypatch.setattr(connection_module, "HEADERS_LIMIT", 0.2)
    monkeypatch.setattr(connections, "SWEEP_INTERVAL", 0.05)
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


async def test_more_connections_than_allowed_are_closed(caplog: pytest.LogCaptureFixture) -> None:
    async with answering(msgspec.structs.replace(LIMITED, max_connections=3)) as server:
        connected = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
        for _ in range(5):
            assert await server.post() == b""
        for _, writer in connected:
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(0.1)
        assert await server.status() == 200
        assert not server.complaints
    assert not caplog.records


async def test_connections_count_before_their_tls_handshake(
    signed: Signed, caplog: pytest.LogCaptureFixture
) -> None:
    settings = msgspec.structs.replace(LIMITED, max_connections=3)
    tls = server_context(str(signed.cert), str(signed.key))
    async with answering(settings, tls=tls) as server:
        idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
        for _ in range(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            async with asyncio.timeout(3):  # less than a handshake may take
                assert await _rest(reader) == b""
            writer.close()
        for _, writer in idle:
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(0.1)
        for _ in range(4):  # one after the other: each releases its place
            assert await _secure_status(server.port, signed) == 200
        assert not server.complaints
    assert not caplog.records


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n\r\n", b"", b"\x16\x03\x01"])
async def test_a_failed_handshake_releases_its_place(
    first: bytes, signed: Signed, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_handshake, "HANDSHAKE_LIMIT", 0.2)
    settings = msgspec.structs.replace(LIMITED, max_connections=1)
    tls = server_context(str(signed.cert), str(signed.key))
    async with answering(settings, tls=tls) as server:
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(first)
            async with asyncio.timeout(3):
                await _rest(reader)
            writer.close()
            await asyncio.sleep(0.05)
        assert await _secure_status(server.port, signed) == 200
        assert not server.complaints
    assert not caplog.records


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    return Authority(tmp_path_factory.mktemp("ca")).sign("server")


async def _rest(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


async def _secure_status(port: int, signed: Signed) -> int:
    trusting = ssl.create_default_context(cafile=signed.cert.with_name("ca.pem"))
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
    writer.write(HEAD + b"Connection: close\r\nContent-Length: 1\r\n\r\nx")
    status = int((await reader.read()).split()[1])
    writer.close()
    await asyncio.sleep(0.05)
    return status


@pytest.mark.parametrize("request_line", [b"GET /postbacks HTTP/1.1", b"GET /postbacks HTTP/1.0"])
async def test_a_client_that_never_reads_is_disconnected(
    request_line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While its responses block the connection, and when the connection closes after them."""
    monkeypatch.setattr(connection_module, "WRITE_LIMIT", 0.3)
    monkeypatch.setattr(connections, "SWEEP_INTERVAL", 0.1)
    settings = msgspec.structs.replace(LIMITED, max_connections=2)
    request = request_line + b"\r\nHost: x\r\nConnection: keep-alive\r\n\r\n"
    async with answering(settings, send_buffer=4096) as server:
        clients = [_client_that_never_reads(server.port) for _ in range(2)]
        async with asyncio.timeout(10):
            while server.connections.connections or not server.connections.requests_count:
                for client in clients:
                    with contextlib.suppress(OSError):
                        client.send(request * 100)
                await asyncio.sleep(0.02)
        assert await server.status() == 200
        for client in clients:
            client.close()
        assert not server.complaints


async def test_closing_does_not_wait_for_a_client_that_never_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_module, "WRITE_LIMIT", 0.3)
    monkeypatch.setattr(connections, "SWEEP_INTERVAL", 0.1)
    monkeypatch.setattr(connections, "IDLE_LIMIT", 0.3)
    settings = msgspec.structs.replace(LIMITED, max_connections=1)
    async with answering(settings, send_buffer=4096) as server:
        client = _client_that_never_reads(server.port)
        client.send(b"GET /postbacks HTTP/1.1\r\nHost: x\r\n\r\n" * 150)
        async with asyncio.timeout(10):
            while server.connections.connections or not server.connections.requests_count:
                await asyncio.sleep(0.02)
        assert server.connections.requests_count == 150  # so it was idle, and no write blocked
        assert await server.status() == 200
        client.close()


def _client_that_never_reads(port: int) -> socket.socket:
    """A client with a small buffer for responses that it does not read."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    client.connect(("127.0.0.1", port))
    client.settimeout(0)
    return client


@pytest.mark.parametrize("size", [10, 4000])
async def test_the_read_ahead_is_limited(size: int) -> None:
    """While the first request waits for its batch: bodies in one piece and in tiny chunks."""
    durable = asyncio.Event()
    body = SLOW + b"x" * 60_000
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(part), part)
        for part in (body[start : start + size] for start in range(0, len(body), size))
    )
    request = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    stream = request * 100
    async with answering(Settings(), durable) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(HEAD + b"Content-Length: 1\r\n\r\nx" + stream)
        await asyncio.sleep(0.5)
        (connection,) = server.connections.connections
        most = _waiting(connection)
        durable.set()
        async with asyncio.timeout(20):
            for _ in range(101):
                assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
                most = max(most, _waiting(connection))
        assert 0 < most <= MAX_READ_AHEAD + 2 * ONE_READ
        writer.close()


def _waiting(connection: RequestHandler) -> int:
    """Bytes of bodies that were read and that no handler has."""
    return sum(payload.total_bytes for _, payload in connection._messages)  # noqa: SLF001


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("header", [b"", b"Content-Encoding: identity\r\n"])
async def test_a_client_that_only_stops_sending_gets_its_responses(
    version: bytes, header: bytes
) -> None:
    durable = asyncio.Event()
    head = b"POST /postbacks HTTP/%s\r\nHost: x\r\nConnection: keep-alive\r\n%s" % (version, header)
    request = head + b"Content-Length: 1\r\n\r\nx"
    cut_off = head + b"Content-Length: 2\r\n\r\nx"
    for stream, statuses in (
        (request, [b"200"]),
        (request * 40, [b"200"] * 40),
        (request + cut_off, [b"200", b"400"]),
        (cut_off, [b"400"]),
    ):
        durable.clear()
        async with answering(LIMITED, durable) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(stream)
            writer.write_eof()
            await asyncio.sleep(0.1)
            durable.set()
            async with asyncio.timeout(5):
                answers = await reader.read()
            assert re.findall(rb"HTTP/1\.[01] (\d+) ", answers) == statuses
            writer.close()
            assert not server.complaints


@pytest.mark.parametrize("header", [b"", b"Content-Encoding: identity\r\n"])
@pytest.mark.parametrize("body", [b"Content-Length: 1\r\n\r\nx", b"Content-Length: 0\r\n\r\n"])
async def test_a_response_does_not_extend_the_time_for_the_next_headers(
    header: bytes, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "HEADERS_LIMIT", 0.5)
    monkeypatch.setattr(connections, "SWEEP_INTERVAL", 0.1)
    request = HEAD + header + body
    async with answering(LIMITED) as server:
        for pieces in (
            (request + b"POST /post",),
            (request[:-1], request[-1:] + b"P"),
            (request, b"P"),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.05)
            async with asyncio.timeout(5):
                assert (await reader.read()).count(b"HTTP/1.1 ") == 1
            writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for cut in range(1, len(request) + 1):  # cut anywhere: idle after its response
            writer.write(request[:cut])
            await asyncio.sleep(0.005)
            writer.write(request[cut:])
            async with asyncio.timeout(5):
                head = await reader.readuntil(b"\r\n\r\n")
                if b" 400 " in head:
                    await reader.readuntil(b"\n")
            (connection,) = server.connections.connections
            assert isinstance(connection, Connection)
            assert not connection.headers_since
        writer.close()


async def test_the_time_of_a_pipelined_request_runs_while_others_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ingest.http.server.RESPONSE_LIMIT", 1.0)
    request = HEAD + b"Content-Length: 1\r\n\r\nx"
    chunks = HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    durable = asyncio.Event()
    async with answering(LIMITED, durable) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        began = time.monotonic()
        writer.write(
            request + chunks + HEAD + b"Content-Encoding: identity\r\nContent-Length: 1\r\n\r\nx"
        )
        for _ in range(3):
            async with asyncio.timeout(10):
                head = await reader.readuntil(b"\r\n\r\n")
                assert b" 503 " in head
                await reader.readexactly(int(re.findall(rb"Content-Length: (\d+)", head)[0]))
        assert time.monotonic() - began < 2.5  # not one second for each
        durable.set()
        writer.close()


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\r\n\r\n",
        HEAD + b"Content-Length: 1\r\n\r\nx",
    ],
)
async def test_no_response_names_a_version(request_: bytes) -> None:
    async with answering(LIMITED) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request_)
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
        assert b"\r\nServer: mms-ingest\r\n" in head
        assert b"ython" not in head
        writer.close()


async def test_bytes_that_are_not_http_are_not_sent_back() -> None:
    """aiohttp would send all of them back, escaped, and hold them in memory for a slow client."""
    async with answering(LIMITED) as server:
        response = await server.says(b"\xff" * 50_000)
        assert response.split()[1] == b"400"
        assert len(response) < 1000


def test_the_file_limit_is_raised_for_connections() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
        assert connections.raise_file_limit(100) == 512
        limit = connections.raise_file_limit(1000)
        assert limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert limit == min(1000 + connections.SPARE_FILES, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_more_postbacks_than_may_wait_get_503() -> None:
    """More than MMS_MAX_WAITING postbacks wait to become durable."""
    durable = asyncio.Event()
    settings = msgspec.structs.replace(LIMITED, max_waiting=2)
    async with answering(settings, durable) as server:
        answers = [asyncio.create_task(server.post()) for _ in range(12)]
        done, _ = await asyncio.wait(answers, timeout=0.5)
        assert len(done) >= 12 - 2 - 4  # two wait, two commits are in progress
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
async def test_headers_that_are_too_large_or_malformed_get_400(
    head: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with answering(LIMITED) as server:
        response = await server.says(head + b"Connection: close\r\n\r\nx")
        assert response.split()[1] == b"400"
        assert not server.arrivals
        assert not server.complaints
    assert not caplog.records  # a log line would repeat the bytes
