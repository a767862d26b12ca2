"""The same bytes to our server and to plain aiohttp, with one handler: they must respond alike.

Every stream is a list of whole requests, cut anywhere; the last request ends the connection. So the
number of responses is known: none may be missing, none may come twice, and they come in the order
of the requests. The streams stay far below the limits of time and size that only our connections
have.

aiohttp drops requests that came in one read with bytes that are not HTTP, and requests after one
for an upgrade to h2c. So the test sends the first only after all other responses, and never the
second.

Plain aiohttp sometimes stops before the last request until more bytes come (see `fast_path`). So
a client that waits for it sends an empty line, which HTTP lets a server ignore.
"""

import asyncio
import base64
import contextlib
import itertools
import re
import socket
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.local.ports import HOST
from ingest.http import connections
from ingest.http.server import Server
from shared.settings import password
from shared.settings.settings import Settings
from shared.settings.sources import BasicAuthUser, Rule
from shared.settings.units import Bytes, Names
from tests.support.answering import SLOW, Answering
from tests.support.budget import EXAMPLES, fuzzed
from tests.support.serving import serving

_fuzzed = settings(fuzzed, max_examples=EXAMPLES // 5)  # each example makes two connections
PATIENCE: Final = 60.0  # an answer that never comes, not one that a busy machine delays
NUDGE_AFTER: Final = 0.05
REFERENCE_TRIES: Final = 5
MAX_BODY: Final = 300_000
TOKEN: Final = "6ZbQ-9.x_Ltoken~0123"
SETTINGS: Final = Settings(
    max_body=Bytes(MAX_BODY),
    sources=Names(("default", "token", "basic")),
    rules={
        "token": Rule(token=(TOKEN,)),
        "basic": Rule(basic=(BasicAuthUser(b"mms", password.hashed(b"horse")),)),
    },
)
_LOGIN: Final = base64.b64encode(b"mms:horse").decode()


def _post(body: bytes, *headers: str, path: str = "/postbacks", version: str = "1.1") -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    head = f"POST {path} HTTP/{version}\r\nHost: x\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _chunked(body: bytes, size: int) -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    head = b"POST /postbacks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + chunks + b"0\r\n\r\n"


CONTINUING: Final[dict[str, Callable[[bytes], bytes]]] = {
    "fast": lambda body: _post(body, "Content-Type: application/json"),
    "slow": lambda body: _post(SLOW + body),
    "empty": lambda _: _post(b""),
    "one-byte chunks": lambda body: _chunked(body[:9000], 1),
    "chunks": lambda body: _chunked(body, 700),
    "usual": lambda body: _post(body, "Content-Encoding: identity"),
    "unknown coding": lambda body: _post(body, "Content-Encoding: br"),
    "get": lambda _: b"GET /postbacks HTTP/1.1\r\nHost: x\r\n\r\n",
    "nowhere": lambda body: _post(body, path="/x"),
    "token": lambda body: _post(body, path=f"/postbacks/token/{TOKEN}"),
    "no token": lambda body: _post(body, path="/postbacks/token"),
    "login": lambda body: _post(body, f"Authorization: Basic {_LOGIN}", path="/postbacks/basic"),
    "upgrade": lambda body: _post(body, "Connection: Upgrade", "Upgrade: websocket"),
    "keep-alive": lambda body: _post(body, "Connection: keep-alive", version="1.0"),
}
ENDING: Final[dict[str, Callable[[bytes], bytes]]] = {
    "close": lambda body: _post(body, "Connection: close"),
    "old": lambda body: _post(body, version="1.0"),
    "too large": lambda _: _post(bytes(MAX_BODY + 1)),
    "too large chunks": lambda _: _chunked(bytes(MAX_BODY + 1), 5000),
    "not http": lambda _: b"\x16\x03\x01 not HTTP\r\n\r\n",
    "two lengths": lambda body: _post(body, "Content-Length: 999"),
}
NOT_HTTP: Final = {"not http", "two lengths"}


class Requests(NamedTuple):
    """The same request, several times."""

    kind: str
    size: int
    times: int


class Stream(NamedTuple):
    """The requests of a client, and how it sends them.

    Attributes:
        cuts: bytes of each write; starts again at the end.
        pause: seconds between two writes.
        read_delay: seconds before it begins to read.
        read_size: bytes of each read.
    """

    requests: list[Requests]
    end: str
    cuts: list[int]
    pause: float
    read_delay: float
    read_size: int

    @property
    def content(self) -> bytes:
        """Without the last request."""
        parts = [
            CONTINUING[kind](b"%d " % number + b"x" * size)
            for number, (kind, size, times) in enumerate(self.requests)
            for _ in range(times)
        ]
        return b"".join(parts)

    @property
    def responses(self) -> int:
        return sum(times for _, _, times in self.requests) + 1

    def pieces(self) -> Iterator[bytes]:
        """A few hundred writes at most; the rest is one write.

        The last request is in one write, because bytes after a close may cost responses (RFC 9112,
        9.6).
        """
        content = memoryview(self.content)
        for cut in itertools.islice(itertools.cycle(self.cuts), 300):
            if len(content) <= cut:
                break
            yield bytes(content[:cut])
            content = content[cut:]
        last = ENDING[self.end](b"end")
        if self.end in NOT_HTTP:
            yield bytes(content)
            yield last
        else:
            yield bytes(content) + last


_sizes = st.sampled_from([0, 1, 10, 700, 1000, 4096, 4097]) | st.integers(0, 9000)
_requests = st.builds(
    Requests,
    st.sampled_from(sorted(CONTINUING)),
    _sizes | st.just(200_000),
    st.sampled_from([1, 1, 1, 2, 3, 31, 32, 33, 100]),
).filter(lambda requests: requests.size * requests.times < 1_000_000)
_streams = st.builds(
    Stream,
    st.lists(_requests, max_size=5),
    st.sampled_from(sorted(ENDING)),
    st.lists(st.sampled_from([1, 10, 100, 700, 1000, 10_000, 300_000]), min_size=1, max_size=4),
    st.sampled_from([0.0, 0.0, 0.0, 0.001]),
    st.sampled_from([0.0, 0.0, 0.01, 0.1]),
    st.sampled_from([65536, 65536, 500]),
)


class Exchange(NamedTuple):
    """The result of a stream: the responses, and the bodies that were accepted."""

    responses: list[tuple[int, bytes]]
    accepted: list[bytes]


def exchange(server: Answering, stream: Stream, *, nudge: bool) -> Exchange:
    """Send a stream and read until the server closes the connection.

    Args:
        nudge: send an empty line when no response comes.
    """
    server.arrivals.clear()
    client = Client(stream, nudge=nudge)
    asyncio.run(client.run(server.port))
    assert not server.complaints
    return Exchange(_responses(client.received), [arrival.body for arrival in server.arrivals])


def reference(alone: Answering, stream: Stream) -> Exchange:
    """The result of plain aiohttp, which may take a few tries.

    It closes the connection while the client still sends the body that it has refused. Then the
    kernel resets the connection now and then, and the client loses responses that it has not read.
    """
    for _ in range(REFERENCE_TRIES - 1):
        result = exchange(alone, stream, nudge=True)
        if len(result.responses) == stream.responses:
            return result
    return exchange(alone, stream, nudge=True)


class Client:
    """A client with small buffers.

    Attributes:
        received: the bytes of the responses.
    """

    def __init__(self, stream: Stream, *, nudge: bool) -> None:
        self._stream = stream
        self._nudge = nudge
        self._between = False  # the last request was written completely
        self._all_but_last = asyncio.Event()
        self.received = b""

    async def run(self, port: int) -> None:
        """Write, read and return when the server closes the connection."""
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.settimeout(0)
            await asyncio.get_running_loop().sock_connect(client, (HOST, port))
            async with asyncio.timeout(PATIENCE):
                writing = asyncio.create_task(self._write(client))
                try:
                    await asyncio.sleep(self._stream.read_delay)
                    await self._read(client)
                finally:
                    writing.cancel()

    def _count(self) -> None:
        if self._between and len(_responses(self.received)) == self._stream.responses - 1:
            self._all_but_last.set()

    async def _write(self, client: socket.socket) -> None:
        *pieces, last = self._stream.pieces()
        with contextlib.suppress(ConnectionError):  # the last may be refused before its end
            for piece in pieces:
                await asyncio.get_running_loop().sock_sendall(client, piece)
                await asyncio.sleep(self._stream.pause)
            if self._stream.end in NOT_HTTP:
                self._between = True
                self._count()
                await self._all_but_last.wait()
                self._between = False
            await asyncio.get_running_loop().sock_sendall(client, last)
            self._between = True

    async def _read(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while True:
                self._count()
                reading = asyncio.ensure_future(loop.sock_recv(client, self._stream.read_size))
                while not (await asyncio.wait([reading], timeout=NUDGE_AFTER))[0]:
                    if self._nudge and self._between:
                        await loop.sock_sendall(client, b"\r\n")
                if not (more := await reading):
                    return
                self.received += more


def _responses(received: bytes) -> list[tuple[int, bytes]]:
    """The complete responses: status and text."""
    responses = []
    while b"\r\n\r\n" in received:
        head, _, received = received.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        size = int(length[1]) if length else 0
        if len(received) < size:
            break
        text = received[:size]
        if status == 400 and not text.endswith(
            b"\n"
        ):  # aiohttp's own text repeats the bytes of one read
            text = b""
        responses.append((status, text))
        received = received[size:]
    return responses


CUT_IN_THE_BODY: Final = Stream([Requests("fast", 1000, 200)], "close", [700], 0, 0, 65536)
MANY_CHUNKS: Final = Stream(
    [Requests("one-byte chunks", 4095, 1), Requests("fast", 10, 2)], "close", [300_000], 0, 0, 65536
)
IN_TWO: Final = len(CONTINUING["fast"](b"0 " + bytes(700))) - 700
BODY_THEN_MANY: Final = Stream(
    [Requests("fast", 700, 1), Requests("get", 0, 100)],
    "close",
    [IN_TWO, 700, 300_000],
    0.02,
    0,
    65536,
)
NOT_READ: Final = Stream([Requests("nowhere", 0, 900)], "close", [300_000], 0, 0.1, 500)


def test_our_connections_respond_as_plain_aiohttp() -> None:
    with (
        serving(SETTINGS, send_buffer=4096) as ours,
        serving(SETTINGS, send_buffer=4096, aiohttp_alone=True) as alone,
    ):

        @_fuzzed
        @given(_streams)
        @example(CUT_IN_THE_BODY)
        @example(MANY_CHUNKS)
        @example(BODY_THEN_MANY)
        @example(NOT_READ)
        def fuzz(stream: Stream) -> None:
            result = exchange(ours, stream, nudge=False)
            assert len(result.responses) == stream.responses
            assert result == reference(alone, stream)

        fuzz()


def test_they_do_so_without_the_fast_path(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[object] = []
    monkeypatch.setattr(Server, "fast_path", lambda *request: taken.append(request))
    monkeypatch.setattr(connections, "TESTED", frozenset({"3.0.0"}))
    with (
        serving(SETTINGS, send_buffer=4096) as ours,
        serving(SETTINGS, send_buffer=4096, aiohttp_alone=True) as alone,
    ):
        assert caplog.text.count("The fast path is off") == 2  # one line for each server

        @_fuzzed
        @given(_streams)
        @example(CUT_IN_THE_BODY)
        @example(MANY_CHUNKS)
        @example(NOT_READ)
        def fuzz(stream: Stream) -> None:
            result = exchange(ours, stream, nudge=True)
            assert len(result.responses) == stream.responses
            assert result == reference(alone, stream)

        fuzz()
        assert not taken, "the fast path got a request"
