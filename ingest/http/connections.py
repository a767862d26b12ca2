"""What a connection may cost: how many there are, how long headers take, how large they get.

aiohttp closes a connection that is idle or still sends its headers after `IDLE_LIMIT`. That is
right for a proxy that keeps connections open, and far too long for somebody who sends a byte now
and then, or never reads an answer; so each connection notes what it waits for, and one look a
second at all of them closes what is late. The body's time is limited with the answer's.
"""

import asyncio
import functools
import logging
import resource
import ssl
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final

import aiohttp
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from ingest import metrics
from ingest.http.connection import PlainConnection
from ingest.http.fast_path import TESTED, Connection, FastPath
from ingest.http.tls_handshake import Handshake

IDLE_LIMIT: Final = 75.0
"""Seconds that a connection may wait for its next request."""

LINGER: Final = 2.0
"""Seconds to read and drop the rest of a refused body, so that its sender sees the answer."""

MAX_LINE: Final = 4096
"""Bytes of a request line, and of a header."""

MAX_HEADERS: Final = 64

BUFFER: Final = 64 * 1024
"""Bytes of a body that are read ahead."""

_LOOK_EVERY: Final = 1.0

SPARE_FILES: Final = 100
"""Open files beside the connections: the spool, RabbitMQ, the admin port."""

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Connections(web.Server):
    """aiohttp's low-level server, with limits.

    Args:
        handler: answers requests.
        express: takes requests that need no task of their own, see `Connection`; not called with
            a version of aiohttp that is not in `TESTED`.
        max_body: bytes; what goes beyond makes `request.read` raise `HTTPRequestEntityTooLarge`.
        max_connections: more are closed at once.
        tls: speak HTTPS.
    """

    def __init__(
        self,
        handler: Handler,
        fast_path: FastPath,
        *,
        max_body: int,
        max_connections: int,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(
            handler,
            request_factory=self._request,
            access_log=None,
            logger=_log,
            keepalive_timeout=IDLE_LIMIT,
            lingering_time=LINGER,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=MAX_HEADERS,
            read_bufsize=BUFFER,
            auto_decompress=False,
        )
        self._fast_path = fast_path if aiohttp.__version__ in TESTED else None
        if self._fast_path is None:
            _log.warning(
                "aiohttp %s was not tested with the fast path, which stays off: fewer postbacks a"
                " second; tested are %s",
                aiohttp.__version__,
                ", ".join(sorted(TESTED)),
            )
        self._tls = tls
        self._handshakes: set[asyncio.Task[None]] = set()
        self._max_body = max_body
        self._max_connections = max_connections
        self._open = 0

    def __call__(self) -> asyncio.Protocol:  # type: ignore[override]  # with TLS, one before
        """The protocol of a connection that was just accepted."""
        if self._tls is not None:
            return Handshake(self, self._tls, functools.partial(self._connection, admitted=True))
        return self._connection(admitted=False)

    def admit(self) -> bool:
        """Count one connection more, unless there are too many; `release` it when it has ended."""
        if self._open >= self._max_connections:
            metrics.CONNECTIONS_CLOSED.labels("too_many").inc()
            return False
        self._open += 1
        return True

    def release(self) -> None:
        """A connection that was admitted has ended."""
        self._open -= 1

    def start(self, handshake: Coroutine[None, None, None]) -> None:
        """Run a handshake until it is done or the server stops."""
        task = asyncio.get_running_loop().create_task(handshake)
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 (aiohttp's)
        """Wait for the answers that are due, then close everything.

        Args:
            timeout: seconds.
        """
        for handshake in self._handshakes:
            handshake.cancel()
        await super().shutdown(timeout)

    async def close_slow(self) -> None:
        """Close what takes longer than its limit, until cancelled; see `PlainConnection`."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            now = time.monotonic()
            for connection in self.connections:
                if isinstance(connection, PlainConnection) and (late := connection.close_late(now)):
                    metrics.CONNECTIONS_CLOSED.labels(late).inc()

    def _connection(self, *, admitted: bool) -> PlainConnection:
        if self._fast_path is None:
            return PlainConnection(self, admitted=admitted, loop=self._loop, **self._kwargs)
        return Connection(self, self._fast_path, admitted=admitted, loop=self._loop, **self._kwargs)

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> web.BaseRequest:
        if isinstance(protocol, PlainConnection):
            protocol.begin(payload)
        return web.BaseRequest(
            message,
            payload,
            protocol,
            writer,
            task,
            self._loop,
            client_max_size=self._max_body,
        )


def make_room(connections: int) -> int:
    """See to it that so many can be open at once; how many open files the process may have.

    Where the usual limit of 1024 is reached no connection is taken any more, not even to close it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if soft >= wanted or soft == resource.RLIM_INFINITY:
        return soft
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


class _WithoutNoise(logging.Filter):
    """What is no HTTP is no error of ours, comes in any number, and may hold secrets."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_log: Final = logging.getLogger("mms-ingest.http")
_log.addFilter(_WithoutNoise())
