"""Accepts connections and limits them: their number, the time and the size of their headers.

aiohttp closes a connection that is idle or still sends its headers after `IDLE_LIMIT`. That is
right for a proxy that keeps connections open, and too long for a client that sends a byte now and
then or never reads a response. So each connection records what it waits for, and a sweep each
second closes those that exceed a limit. The time for the body is part of the time for the response.
"""

import asyncio
import functools
import logging
import resource
import ssl
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import aiohttp
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from ingest import metrics
from ingest.http.connection import Connection
from ingest.http.fast_path import TESTED, FastConnection, FastPath
from ingest.http.tls_handshake import Handshake

IDLE_LIMIT: Final = 75.0
"""Seconds that a connection may wait for its next request."""

DISCARD_LIMIT: Final = 2.0
"""Seconds to read and discard the rest of a refused body, so that the client gets the response."""

MAX_LINE: Final = 4096
"""Bytes of a request line, and of a header."""

MAX_HEADERS: Final = 64

MAX_BUFFERED_BODY: Final = 64 * 1024
"""Bytes of a body that are read ahead."""

SWEEP_INTERVAL: Final = 1.0
"""Seconds between two looks for connections that exceed a limit."""

SPARE_FILES: Final = 100
"""Open files beside the connections: the spool, RabbitMQ, the admin port."""

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Connections(web.Server):
    """aiohttp's low-level server, with limits.

    Args:
        handler: responds to requests.
        fast_path: see `fast_path.FastPath`; off with a version of aiohttp that is not in `TESTED`.
        max_body: bytes; for a larger body `request.read` raises `HTTPRequestEntityTooLarge`.
        max_connections: further connections are closed at once.
        tls: serve HTTPS.

    Attributes:
        options: what aiohttp's connections take.
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
        super().__init__(handler, request_factory=self.new_request)
        self.options: Final[dict[str, Any]] = {
            "access_log": None,
            "logger": _log,
            "keepalive_timeout": IDLE_LIMIT,
            "lingering_time": DISCARD_LIMIT,
            "max_line_size": MAX_LINE,
            "max_field_size": MAX_LINE,
            "max_headers": MAX_HEADERS,
            "read_bufsize": MAX_BUFFERED_BODY,
            "auto_decompress": False,
        }
        self._fast_path = fast_path if aiohttp.__version__ in TESTED else None
        if self._fast_path is None:
            _log.warning(
                "aiohttp %s was not tested with the fast path. The fast path is off, so the ingress"
                " takes fewer postbacks a second. Tested versions: %s",
                aiohttp.__version__,
                ", ".join(sorted(TESTED)),
            )
        self._tls = tls
        self._handshakes: set[asyncio.Task[None]] = set()
        self._max_body = max_body
        self._max_connections = max_connections
        self._open = 0

    def __call__(self) -> asyncio.Protocol:  # type: ignore[override]  # with TLS a handshake first
        """The protocol for a connection that was just accepted."""
        if self._tls is not None:
            return Handshake(self, self._tls, functools.partial(self._connection, counted=True))
        return self._connection(counted=False)

    def reserve_place(self) -> bool:
        """Count one more connection; False when `max_connections` are open.

        The caller calls `release_place` when the connection has ended.
        """
        if self._open >= self._max_connections:
            metrics.CONNECTIONS_CLOSED.labels("too_many").inc()
            return False
        self._open += 1
        return True

    def release_place(self) -> None:
        """Stop counting a connection that has ended."""
        self._open -= 1

    def start_handshake(self, handshake: Coroutine[None, None, None]) -> None:
        """Run a TLS handshake until it is done or the server stops."""
        task = asyncio.get_running_loop().create_task(handshake)
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 (aiohttp's)
        """Wait for the responses that are due, then close all connections.

        Args:
            timeout: seconds.
        """
        for handshake in self._handshakes:
            handshake.cancel()
        await super().shutdown(timeout)

    async def close_slow(self) -> None:
        """Close connections that exceed a time limit, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            now = time.monotonic()
            for connection in self.connections:
                if isinstance(connection, Connection) and (reason := connection.close_late(now)):
                    metrics.CONNECTIONS_CLOSED.labels(reason).inc()

    def _connection(self, *, counted: bool) -> Connection:
        loop = asyncio.get_running_loop()
        if self._fast_path is None:
            return Connection(self, counted=counted, loop=loop, **self.options)
        return FastConnection(self, self._fast_path, counted=counted, loop=loop, **self.options)

    def new_request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> web.BaseRequest:
        """Aiohttp calls this for each request on the slow path."""
        if isinstance(protocol, Connection):
            protocol.begin(payload)
        return web.BaseRequest(
            message,
            payload,
            protocol,
            writer,
            task,
            asyncio.get_running_loop(),
            client_max_size=self._max_body,
        )


def raise_file_limit(connections: int) -> int:
    """Raise the process's limit of open files so that it can hold this many connections.

    The limit is usually 1024. At the limit a process accepts no connection, not even to close it.

    Returns:
        The limit, which the system may keep lower than needed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if soft >= wanted or soft == resource.RLIM_INFINITY:
        return soft
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


class _NoMalformedRequests(logging.Filter):
    """Drops aiohttp's lines about bytes that are not HTTP: there may be many, with secrets."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_log: Final = logging.getLogger("mms-ingest.http")
_log.addFilter(_NoMalformedRequests())
