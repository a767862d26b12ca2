"""One connection, with a fast path for ordinary postbacks.

aiohttp gives each request a task, a request object and a response object. Most postbacks need none
of them: they are complete in the first read, their sender is known, and all that has to be waited
for is their batch. The fast path hands such a request over as it was parsed, and writes its answer
when its batch is durable. Everything else, also whatever is wrong, goes aiohttp's usual way.

aiohttp offers nothing for this, so this file uses private parts of `RequestHandler`. With a version
of aiohttp that is not in `TESTED` a connection is a `PlainConnection`: slower, never wrong.

* `_messages`: parsed requests that wait. `_waiter`: the future that wakes the connection's task.
  Whoever holds the waiter has the connection: while the fast path has it, aiohttp sees a connection
  that is busy.
* `_request_count`: requests that were parsed.
* `_parser.message_consumed`: tells the parser that a request was taken from `_messages`. The parser
  stops when 32 wait. aiohttp calls it when it takes a request; when the body was not complete then,
  the parser has not counted the request yet and counts it afterwards, one too many for good. Then
  it stops one request too early and nobody starts it again.
* `_reading_paused`: aiohttp has stopped reading, because a body is too much.
* `_buffer_paused`, `_pause_reading_for_buffer`, `_resume_reading_if_drained`: reading stops while
  too much waits.
* `_paused`: the client does not read its answers.
* `_request_in_progress`, `_handler_waiter`: a shutdown waits for the answer.
* `_close`, `_force_close`, `_keepalive_handle`, `_keepalive_timeout`, `_next_keepalive_close_time`,
  `_process_keepalive`, `_lingering_time`, `_loop`: how and when a connection ends.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from aiohttp import HttpVersion11, web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler, RequestPayloadError

from ingest.http.connection import PlainConnection

if TYPE_CHECKING:
    from ingest.http.connections import Connections

TESTED: Final = frozenset({"3.14.4", "3.14.5"})
"""Versions of aiohttp with which all tests pass."""

READ_AHEAD: Final = 64 * 1024
"""Bytes of requests that are read while others are before them. One read, which the event loop
limits to 256 KiB, can go beyond."""

FastPath = Callable[["Connection", RawRequestMessage, StreamReader], bool]
"""Takes a complete request, and later calls `Connection.answer` once; or returns False."""

_END_OF_HEADERS: Final = b"\r\n\r\n"


class StoppedSendingError(RequestPayloadError, TimeoutError):
    """A client that stopped sending in the middle of a body.

    To aiohttp, which may be dropping the rest of a body that was refused, it is the end of the time
    for that: a `TimeoutError`. Any other error it would log.
    """


class Connection(PlainConnection):
    """One connection.

    Args:
        manager: see `PlainConnection`.
        express: see there.
        admitted: see `PlainConnection`.
        limits: what aiohttp takes.
    """

    __slots__ = (
        "_ahead",
        "_arrived",
        "_ended",
        "_fast_path",
        "_held",
        "_newest",
        "_taken_early",
        "_taking",
    )

    def __init__(
        self,
        manager: "Connections",
        fast_path: FastPath,
        *,
        admitted: bool,
        **limits: Any,  # noqa: ANN401 (aiohttp's own arguments)
    ) -> None:
        super().__init__(manager, admitted=admitted, **limits)
        self._fast_path = fast_path
        self._held: asyncio.Future[None] | None = None
        self._arrived: deque[float] = deque()  # when each of `_messages` was parsed
        self._newest: StreamReader | None = None  # the body of the request that was parsed last
        self._taken_early = False  # aiohttp took the newest request before its body was complete
        self._taking = False  # the fast path looks at a request, and may take its body
        self._ahead = 0
        self._ended = False  # the client will send nothing more

    def data_received(self, data: bytes) -> None:
        waiter = self._waiter
        if waiter is None or waiter.done():  # another request is being answered
            self._parse(data)
            return
        self._waiter = None
        self._parse(data)  # finds nobody to wake
        self._waiter = waiter
        if self._messages:
            self._begin(waiter)

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002
        """Called twice for every body, and costly; a complete one has nothing left to parse."""
        if self._reading_paused:
            super().resume_reading(resume_parser)
        elif resume_parser and not self._taking:
            self.data_received(b"")

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's own type; aiohttp's is None
        """A client that only stops sending still gets its answers; over TLS that is impossible."""
        busy = self._messages or self._waiter is None or self._waiter.done()
        if not busy or self.transport is None or self.ssl_context is not None:
            return False
        self._ended = True
        self._lingering_time = 0.0
        if self._newest is not None and not self._newest.is_eof():
            self._newest.set_exception(StoppedSendingError("the client stopped sending"))
        return True

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._held is not None:
            self._waiter, self._held = self._held, None
        super().connection_lost(exc)

    def answer(self, response: bytes, *, close: bool) -> None:
        """Write the answer of the request that the fast path took.

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
        self.transport.write(response)
        if close or self._close or self._force_close or (self._ended and not self._messages):
            self.force_close()
            return
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(
                self._next_keepalive_close_time, self._process_keepalive
            )
        if self._messages:
            self._begin(waiter)

    def begin(self, payload: StreamReader) -> None:
        """The usual way has taken a request."""
        self.began = self._arrived.popleft() if self._arrived else self._loop.time()
        self._taken_early = not payload.is_eof()
        if not self._messages:
            self._newest = payload

    def log_access(
        self, request: web.BaseRequest, response: web.StreamResponse, time: float | None
    ) -> None:
        if self._ended and not self._messages:
            self._close = True
        since = self.headers_since  # of the request after this one
        super().log_access(request, response, time)
        self.headers_since = since

    def close_late(self, now: float) -> str:
        if self._ended and not self._messages and self._waiter and not self._waiter.done():
            self.force_close()  # its end came after the last answer and before aiohttp was idle
        return super().close_late(now)

    def _resume_reading_if_drained(self) -> None:
        if self._ahead <= READ_AHEAD or len(self._messages) <= 1:
            super()._resume_reading_if_drained()

    def _parse(self, data: bytes) -> None:
        """Let aiohttp parse, and note what it does not: clocks and the size of what waits."""
        count = self._request_count
        body = self._newest
        received = -1 if body is None or body.is_eof() else body.total_bytes
        RequestHandler.data_received(self, data)  # not `PlainConnection`'s, whose clock is coarse
        if self._taken_early and body is not None and body.is_eof():
            self._taken_early = False
            if self._parser is not None:
                self._parser.message_consumed()
                RequestHandler.data_received(
                    self, b""
                )  # goes on with what the parser stopped before
        if self._messages and self._request_count != count:
            self._newest = self._messages[-1][1]
            now = self._loop.time()
            while len(self._arrived) < len(self._messages):
                self._arrived.append(now)
            self._limit_headers(data, self._newest, self._newest.total_bytes)
        elif body is not None and received >= 0:
            self._limit_headers(data, body, body.total_bytes - received)
        elif data and not self.headers_since:
            self.headers_since = time.monotonic()
        if self._upgraded:  # these bytes are kept until the request for it is answered
            self.headers_since = 0.0
        if len(self._messages) <= 1:
            self._ahead = 0
        else:
            self._ahead += len(data)
            if self._ahead > READ_AHEAD and not self._buffer_paused:
                self._pause_reading_for_buffer()

    def _limit_headers(self, data: bytes, body: StreamReader, size: int) -> None:
        """The time for headers runs if bytes came after the newest request's end.

        The parser does not say where a request ended, but data that ends with a request ends with
        its headers (or its last chunk), or with its headers and its body, or is all body. A client
        can send the beginning of headers that look like that. It is idle then, which is limited
        too, and the time runs from its next byte.

        Args:
            body: of the newest request.
            size: bytes of the body that came with the data.
        """
        complete = (
            not body.is_eof()
            or self._buffer_paused  # the rest waits for us
            or size == len(data)
            or _END_OF_HEADERS.endswith(data[-4:])
            or (size > 0 and _END_OF_HEADERS.endswith(data[-size - 4 : -size]))
        )
        self.headers_since = 0.0 if complete else time.monotonic()

    def _begin(self, waiter: asyncio.Future[None]) -> None:
        """Begin with the first request that waits, by the fast path or the usual way."""
        self._waiter = None
        message, payload = self._messages.popleft()
        self.began = self._arrived.popleft()
        self._taking = True
        fast = self._parser is not None and self._is_fast(message, payload)
        self._taking = False
        if fast and self._parser is not None:
            self._parser.message_consumed()
            self._held = waiter
            self._request_in_progress = True
        else:
            self._messages.appendleft((message, payload))
            self._arrived.appendleft(self.began)
            self._waiter = waiter
            waiter.set_result(None)

    def _is_fast(self, message: object, payload: StreamReader) -> bool:
        return (
            isinstance(message, RawRequestMessage)  # else it is aiohttp's note of an error
            and message.version == HttpVersion11
            and not message.upgrade
            and payload.is_eof()
            and payload.exception() is None
            and not self._paused  # nobody reads the answers
            and not self._buffer_paused
            and self._fast_path(self, message, payload)
        )
