"""What a connection may cost: how many there are, how long headers take, how large they get.

aiohttp closes a connection that is idle or still sends its headers after `IDLE_LIMIT`. That is
right for a proxy that keeps connections open, and far too long for somebody who sends a byte now
and then; so a connection also notes when its headers began, and one look a second at all of them
closes what is late. The body's time is limited with the answer's.
"""

import asyncio
import logging
import resource
import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from ingest import metrics
from ingest.connection import Connection, Express

HEADERS_LIMIT: Final = 5.0
"""Seconds from a request's first byte to the end of its headers."""

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
        express: takes requests that need no task of their own, see `Connection`.
        max_body: bytes; what goes beyond makes `request.read` raise `HTTPRequestEntityTooLarge`.
        max_connections: more are closed at once.
    """

    def __init__(
        self, handler: Handler, express: Express, *, max_body: int, max_connections: int
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
        self._express = express
        self._max_body = max_body
        self._max_connections = max_connections
        self._open = 0

    def __call__(self) -> RequestHandler:
        return Connection(self, self._express, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._open += 1
        if self._open > self._max_connections:
            metrics.CONNECTIONS_CLOSED.labels("too_many").inc()
            transport.abort()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._open -= 1

    async def close_slow(self) -> None:
        """Close what takes longer than `HEADERS_LIMIT` over its headers, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            late = time.monotonic() - HEADERS_LIMIT
            for connection in self.connections:
                if isinstance(connection, Connection) and 0 < connection.headers_since < late:
                    metrics.CONNECTIONS_CLOSED.labels("slow").inc()
                    connection.force_close()

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> web.BaseRequest:
        if isinstance(protocol, Connection):
            protocol.headers_since = 0.0
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
