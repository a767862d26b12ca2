"""One connection, and its express lane.

aiohttp gives each request a task, a request object and a response object. Most postbacks need none
of them: they are complete in the first read, their sender is known, and all that has to be waited
for is their batch. Such a request is handed over as it was parsed, and its answer is written when
its batch is durable. Everything else, also whatever is wrong, goes aiohttp's usual way.

aiohttp has no door for this, so it leans on what `RequestHandler` keeps: `_messages`, where parsed
requests queue up, and `_waiter`, which wakes the connection's task. Whoever holds the waiter has
the connection: while the express lane has it, aiohttp sees a connection that is busy.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from aiohttp import HttpVersion11, web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

Express = Callable[["Connection", RawRequestMessage, StreamReader], bool]
"""Takes a complete request, and later calls `Connection.answer` once; or returns False."""


class Connection(RequestHandler):
    """One connection.

    Args:
        manager: aiohttp's server.
        express: see there.
        limits: what aiohttp takes.

    Attributes:
        headers_since: when the first byte came that belongs to no request yet; 0 if there is none.
    """

    __slots__ = ("_express", "_held", "headers_since")

    def __init__(self, manager: web.Server, express: Express, **limits: Any) -> None:  # noqa: ANN401
        super().__init__(manager, **limits)
        self.headers_since = 0.0
        self._express = express
        self._held: asyncio.Future[None] | None = None

    @property
    def peer(self) -> str:
        """The address that it comes from; empty if it has none."""
        return self.peername[0] if isinstance(self.peername, tuple) else ""

    def data_received(self, data: bytes) -> None:
        if data and not self.headers_since:
            self.headers_since = time.monotonic()
        waiter = self._waiter
        if waiter is None or waiter.done():  # another request is being answered
            super().data_received(data)
            return
        self._waiter = None
        super().data_received(data)  # parses, and finds nobody to wake
        self._waiter = waiter
        if self._messages:
            self._begin(waiter)

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002
        """Called for every body, and costly; only what was paused has to be resumed."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._held is not None:
            self._waiter, self._held = self._held, None
        super().connection_lost(exc)

    def answer(self, response: bytes, *, close: bool) -> None:
        """Write the answer of the request that the express lane took.

        Args:
            close: end the connection after it.
        """
        self._request_in_progress = False
        if self._handler_waiter is not None and not self._handler_waiter.done():
            self._handler_waiter.set_result(None)  # a shutdown waits for this answer
        waiter, self._held = self._held, None
        if waiter is None or self.transport is None:  # nobody is there any more
            return
        self._waiter = waiter
        self.headers_since = 0.0
        self.transport.write(response)
        if close or self._close or self._force_close:
            self.force_close()
            return
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(
                self._next_keepalive_close_time, self._process_keepalive
            )
        if self._messages:
            self._begin(waiter)

    def log_access(
        self, request: web.BaseRequest, response: web.StreamResponse, time: float | None
    ) -> None:
        """Called once the answer is written: what came of its body began no headers."""
        self.headers_since = 0.0
        super().log_access(request, response, time)

    def _begin(self, waiter: asyncio.Future[None]) -> None:
        """Begin with the first request that waits, in one lane or the other."""
        self._waiter = None  # reading a body may make aiohttp parse what it had put off
        message, payload = self._messages.popleft()
        if self._parser is not None and self._in_express_lane(message, payload):
            self._parser.message_consumed()
            self._held = waiter
            self._request_in_progress = True
            self.headers_since = 0.0
        else:
            self._messages.appendleft((message, payload))
            self._waiter = waiter
            waiter.set_result(None)

    def _in_express_lane(self, message: object, payload: StreamReader) -> bool:
        return (
            isinstance(message, RawRequestMessage)  # else it is aiohttp's note of an error
            and message.version == HttpVersion11
            and not message.upgrade
            and payload.is_eof()
            and payload.exception() is None
            and not self._paused  # nobody reads the answers
            and not self._buffer_paused
            and self._express(self, message, payload)
        )
