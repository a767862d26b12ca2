"""Raw bytes at the ingress's socket: it responds or closes, with no unhandled error or leak."""

import base64
import contextlib
import gc
import gzip
import ipaddress
import re
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.local.ports import HOST
from shared.settings import password
from shared.settings.settings import Settings
from shared.settings.sources import BasicAuthUser, Rule
from shared.settings.units import Bytes, Names, Networks, parse_networks
from tests.support.answering import Answering
from tests.support.budget import fuzzed, resident
from tests.support.mutation import mutated
from tests.support.serving import serving

MAX_REPEATED = 100
ROUNDS = 4
READ_PAUSE = 0.03
MAX_GROWTH = 4 * 2**20
BOMB = gzip.compress(bytes(3_000_000))
GOOD = b"POST /postbacks HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"

TOKEN = "6ZbQ-9.x_Ltoken~0123"
RESTRICTED = Settings(
    max_body=Bytes(4096),
    sources=Names(("default", "token", "basic", "allow")),
    rules={
        "token": Rule(token=(TOKEN,), rate=50),
        "basic": Rule(basic=(BasicAuthUser(b"mms", password.hashed(b"horse")),)),
        "allow": Rule(allow=parse_networks("127.0.0.1")),
    },
    trusted_proxies=Networks((ipaddress.ip_network("127.0.0.0/8"),)),
)
STATUSES = {100, 200, 400, 401, 403, 404, 405, 408, 413, 415, 429, 503}

_junk = st.binary(max_size=300)
_paths = (
    *(b"/postbacks", b"/postbacks/token/" + TOKEN.encode(), b"/postbacks/basic"),
    *(
        b"/postbacks/allow",
        b"/postbacks/token/x",
        b"/",
        b"*",
        b"http://h/postbacks",
        b"//h/postbacks",
        b"h:1",
    ),
)
_path = st.sampled_from(_paths) | _junk.map(lambda junk: b"/postbacks/" + junk)
_length = st.sampled_from([b"0", b"1", b"4097", b"-1", b"1e3", b"9" * 30, b"+1", b""])
_valid_header = st.one_of(
    st.tuples(st.just(b"Content-Encoding"), st.sampled_from([b"gzip", b"deflate", b"br", b"\xff"])),
    st.tuples(st.just(b"Connection"), st.sampled_from([b"close", b"keep-alive", b"Upgrade"])),
    st.tuples(st.just(b"Upgrade"), st.sampled_from([b"websocket", b"h2c"])),
    st.just((b"Expect", b"100-continue")),
    st.tuples(
        st.just(b"Authorization"), _junk.map(lambda junk: b"Basic " + base64.b64encode(junk))
    ),
    st.just((b"Authorization", b"Basic bW1zOmhvcnNl")),
    st.tuples(
        st.just(b"X-Forwarded-For"), st.sampled_from([b"192.0.2.1, ::1", b"127.0.0.1", b","])
    ),
)
_invalid_header = st.one_of(
    st.tuples(st.just(b"Content-Length"), _length),
    st.tuples(st.just(b"Transfer-Encoding"), st.sampled_from([b"chunked", b"gzip, chunked", b"x"])),
    st.tuples(st.sampled_from([b"Authorization", b"X-Forwarded-For", b"Content-Type"]), _junk),
    st.tuples(_junk, _junk),
)
_body = _junk | _junk.map(gzip.compress) | st.sampled_from([b"x" * 4096, b"x" * 4097, BOMB])


def _sized(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


def _chunked(body: bytes) -> bytes:
    return b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


def _framed(
    method: bytes, path: bytes, version: bytes, headers: list[tuple[bytes, bytes]], rest: bytes
) -> bytes:
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    return b"%s %s %s\r\nHost: x\r\n%s%s" % (method, path, version, lines, rest)


_valid = st.builds(
    _framed,
    st.sampled_from([b"POST"] * 6 + [b"GET", b"PUT", b"OPTIONS"]),
    st.sampled_from(_paths),
    st.sampled_from([b"HTTP/1.1"] * 6 + [b"HTTP/1.0"]),
    st.lists(_valid_header, max_size=3),
    _body.filter(bool).map(_sized) | _body.filter(bool).map(_chunked),
)
_invalid = st.builds(
    _framed,
    st.sampled_from([b"POST", b"CONNECT", b"post", b"PRI"]) | _junk,
    _path,
    st.sampled_from([b"HTTP/1.1", b"HTTP/2.0", b"HTTP/0.9", b""]),
    st.lists(_valid_header | _invalid_header, max_size=6),
    (_junk | _body.map(_chunked)).map(lambda rest: b"\r\n" + rest),
)
_streams = st.lists(_valid | _valid | mutated(_valid) | _invalid | _junk, min_size=1, max_size=4)


class Client:
    """Sends bytes as they are.

    Attributes:
        sent: the first `MAX_REPEATED` streams.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.sent: list[bytes] = []

    def send(self, stream: bytes) -> list[int]:
        """Send a stream and read for a short time; the statuses of the responses."""
        if len(self.sent) < MAX_REPEATED:
            self.sent.append(stream)
        said = b""
        with socket.create_connection((HOST, self._port), timeout=5) as connection:
            connection.settimeout(READ_PAUSE)
            with contextlib.suppress(OSError):
                connection.sendall(stream)
                while more := connection.recv(65536):
                    said += more
        return [
            int(status) for status in re.findall(rb"^HTTP/1\.[01] (\d{3}) ", said, re.MULTILINE)
        ]


def test_it_responds_or_closes(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.http.server.RESPONSE_LIMIT", 0.2)
    monkeypatch.setattr("ingest.http.connections.DISCARD_LIMIT", 0.1)
    with serving(RESTRICTED) as server:
        client = Client(server.port)

        @fuzzed
        @given(_streams)
        def fuzz(requests: list[bytes]) -> None:
            statuses = client.send(b"".join(requests))
            assert set(statuses) <= STATUSES
            assert not server.complaints

        fuzz()
        _check_memory(client, server)
        assert client.send(GOOD) == [200]
        assert not server.complaints
    # A malformed request is not logged, because it may hold secrets. A refusal is logged with its
    # source and reason.
    assert all(each.getMessage().startswith("postbacks of source ") for each in caplog.records)


def _check_memory(client: Client, server: Answering) -> None:
    """The same requests in each round: the first rounds fill caches and pools, later ones not."""
    sizes = []
    for _ in range(ROUNDS):
        for stream in client.sent:
            client.send(stream)
        server.arrivals.clear()
        gc.collect()
        sizes.append(resident())
    assert sizes[-1] - sizes[1] < MAX_GROWTH, sizes
    assert len(server.connections.connections) <= 1
