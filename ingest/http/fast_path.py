"""A connection with a fast path for ordinary postbacks.

aiohttp gives each request a task, a request object and a response object. Most postbacks need none
of them: they are complete in the first read, access control allows them at once, and they wait only
for their batch. The fast path passes such a request on as it was parsed and writes the response
when the batch is durable. All other requests go through aiohttp, the slow path, also every
request with an error in it.

aiohttp has no interface for this, so this file uses private parts of `RequestHandler`. With a
version of aiohttp that is not in `TESTED` a connection is a plain `Connection`: slower, never
wrong.

* `_messages`: parsed requests that wait. `_waiter`: the future that wakes the connection's task.
  The path that holds the waiter owns the connection: while the fast path holds it, aiohttp sees a
  busy connection.
* `_request_count`: requests that were parsed.
* `_parser.message_consumed`: informs the parser that a request was taken from `_messages`. The
  parser stops when 32 wait. aiohttp calls this when it takes a request. When the body is not
  complete then, the parser counts the request later, one too many for good. It then stops one
  request too early and nothing starts it again.
* `_reading_paused`: aiohttp has stopped reading because too much of a body waits.
* `_buffer_paused`, `_pause_reading_for_buffer`, `_resume_reading_if_drained`: reading stops while
  too many requests wait.
* `_paused`: the client does not read its responses.
* `_request_in_progress`, `_handler_waiter`: a shutdown waits for the response.
* `_upgraded`: the client asked for another protocol; aiohttp keeps the bytes that follow.
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

from ingest.http.connection import Connection

if TYPE_CHECKING:
    from ingest.http.connections import Connections

TESTED: Final = frozenset({"3.14.4", "3.14.5"})
"""Versions of aiohttp with which all tests pass."""

PRIVATE: Final = {
    "aiohttp.web_protocol.RequestHandler": (
        "_buffer_paused",
        "_close",
        "_force_close",
        "_handler_waiter",
        "_keepalive_handle",
        "_keepalive_timeout",
        "_lingering_time",
        "_loop",
        "_messages",
        "_next_keepalive_close_time",
        "_parser",
        "_pause_reading_for_buffer",
        "_paused",
        "_process_keepalive",
        "_reading_paused",
        "_request_count",
        "_request_in_progress",
        "_resume_reading_if_drained",
        "_upgraded",
        "_waiter",
    ),
    "aiohttp.http_parser.HttpRequestParser": ("message_consumed",),
}
"""Names of aiohttp that are not part of its public interface, by class."""

MAX_READ_AHEAD: Final = 64 * 1024
"""Bytes of requests that are read while an earlier one waits for its response. One read, which the
event loop limits to 256 KiB, can go beyond."""

FastPath = Callable[["FastConnection", RawRequestMessage, StreamReader], bool]
"""Takes a complete request, and later calls `FastConnection.respond` once; or returns False."""

_END_OF_HEADERS: Final = b"\r\n\r\n"


class StoppedSendingError(RequestPayloadError, TimeoutError):
    """The client stopped sending in the middle of a body.

    It is a `TimeoutError` too, because aiohttp may be discarding the rest of a refused body. It
    treats that error as the end of the time for this, and would log any other.
    """


class FastConnection(Connection):
    """One connection.

    Args:
        manager: see `Connection`.
        fast_path: gets each complete request first.
        counted: see `Connection`.
        options: aiohttp's own.
    """

    __slots__ = (
        "_client_done",
        "_fast_path",
        "_held_waiter",
        "_newest_body",
        "_parsed_at",
        "_read_ahead",
        "_taken_early",
        "_trying",
    )

    def __init__(
        self,
        manager: "Connections",
        fast_path: FastPath,
        *,
        counted: bool,
        **options: Any,  # noqa: ANN401 (aiohttp's own arguments)
    ) -> None:
        super().__init__(manager, counted=counted, **options)
        self._fast_path = fast_path
        self._held_waiter: asyncio.Future[None] | None = None  # while the fast path owns it
        self._parsed_at: deque[float] = deque()  # when each of `_messages` was parsed
        self._newest_body: StreamReader | None = None  # of the request that was parsed last
        self._taken_early = False  # aiohttp took the newest request before its body was complete
        self._trying = False  # the fast path looks at a request, and may take its body
        self._read_ahead = 0  # bytes
        self._client_done = False  # the client will send nothing more

    def data_received(self, data: bytes) -> None:
        waiter = self._waiter
        if waiter is None or waiter.done():  # another request waits for its response
            self._parse(data)
            return
        self._waiter = None  # so that parsing does not wake aiohttp's task
        self._parse(data)
        self._waiter = waiter
        if self._messages:
            self._start_first(waiter)

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002
        """Skip the costly part for a complete body; aiohttp calls this twice for each body."""
        if self._reading_paused:
            super().resume_reading(resume_parser)
        elif resume_parser and not self._trying:
            self.data_received(b"")

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's own type; aiohttp's is None
        """A client that only stops sending still gets its responses; TLS does not allow this."""
        busy = self._messages or self._waiter is None or self._waiter.done()
        if not busy or self.transport is None or self.ssl_context is not None:
            return False
        self._client_done = True
        self._lingering_time = 0.0
        if self._newest_body is not None and not self._newest_body.is_eof():
            self._newest_body.set_exception(StoppedSendingError("the client stopped sending"))
        return True

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._held_waiter is not None:
            self._waiter, self._held_waiter = self._held_waiter, None
        super().connection_lost(exc)

    def respond(self, response: bytes, *, close: bool) -> None:
        """Write the response to the request that the fast path took.

        Args:
            close: close the connection after it.
        """
        self._request_in_progress = False
        if self._handler_waiter is not None and not self._handler_waiter.done():
            self._handler_waiter.set_result(None)  # a shutdown waits for this response
        waiter, self._held_waiter = self._held_waiter, None
        if waiter is None or self.transport is None:  # the client has closed the connection
            return
        self._waiter = waiter
        self.transport.write(response)
        if close or self._close or self._force_close or (self._client_done and not self._messages):
            self.force_close()
            return
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(
                self._next_keepalive_close_time, self._process_keepalive
            )
        if self._messages:
            self._start_first(waiter)

    def begin(self, payload: StreamReader) -> None:
        """The slow path has taken a request."""
        self.began = self._parsed_at.popleft() if self._parsed_at else self._loop.time()
        self._taken_early = not payload.is_eof()
        if not self._messages:
            self._newest_body = payload

    def log_access(
        self, request: web.BaseRequest, response: web.StreamResponse, time: float | None
    ) -> None:
        if self._client_done and not self._messages:
            self._close = True
        since = self.headers_since  # of the request after this one
        super().log_access(request, response, time)
        self.headers_since = since

    def close_late(self, now: float) -> str:
        if self._client_done and not self._messages and self._waiter and not self._waiter.done():
            self.force_close()  # the client stopped after its last response, before aiohttp idled
        return super().close_late(now)

    def _resume_reading_if_drained(self) -> None:
        if self._read_ahead <= MAX_READ_AHEAD or len(self._messages) <= 1:
            super()._resume_reading_if_drained()

    def _parse(self, data: bytes) -> None:
        """Let aiohttp parse, and record what it does not: times, and the size of what waits."""
        count = self._request_count
        body = self._newest_body
        received = -1 if body is None or body.is_eof() else body.total_bytes
        RequestHandler.data_received(self, data)  # not `Connection`'s, whose time is less exact
        if self._taken_early and body is not None and body.is_eof():
            self._taken_early = False
            if self._parser is not None:
                self._parser.message_consumed()
                RequestHandler.data_received(self, b"")  # goes on where the parser stopped
        if self._messages and self._request_count != count:
            self._newest_body = self._messages[-1][1]
            now = self._loop.time()
            while len(self._parsed_at) < len(self._messages):
                self._parsed_at.append(now)
            self._limit_headers(data, self._newest_body, self._newest_body.total_bytes)
        elif body is not None and received >= 0:
            self._limit_headers(data, body, body.total_bytes - received)
        elif data and not self.headers_since:
            self.headers_since = time.monotonic()
        if self._upgraded:  # aiohttp keeps these bytes until it has responded to the upgrade
            self.headers_since = 0.0
        if len(self._messages) <= 1:
            self._read_ahead = 0
        else:
            self._read_ahead += len(data)
            if self._read_ahead > MAX_READ_AHEAD and not self._buffer_paused:
                self._pause_reading_for_buffer()

    def _limit_headers(self, data: bytes, body: StreamReader, size: int) -> None:
        """Start the time limit for headers when bytes came after the end of the newest request.

        The parser does not report where a request ended. But data that ends with a request ends
        with its headers (or its last chunk), or with its headers and its body, or is all body.
        A client can send the beginning of headers that look like that. Its connection then counts
        as idle, which is limited too, and the time runs from its next byte.

        Args:
            body: of the newest request.
            size: bytes of the body that came with the data.
        """
        complete = (
            not body.is_eof()
            or self._buffer_paused  # the rest is not read yet
            or size == len(data)
            or _END_OF_HEADERS.endswith(data[-4:])
            or (size > 0 and _END_OF_HEADERS.endswith(data[-size - 4 : -size]))
        )
        self.headers_since = 0.0 if complete else time.monotonic()

    def _start_first(self, waiter: asyncio.Future[None]) -> None:
        """Start the first request that waits, on the fast path or the slow path."""
        self._waiter = None
        message, payload = self._messages.popleft()
        self.began = self._parsed_at.popleft()
        self._trying = True
        fast = self._parser is not None and self._is_fast(message, payload)
        self._trying = False
        if fast and self._parser is not None:
            self._parser.message_consumed()
            self._held_waiter = waiter
            self._request_in_progress = True
        else:
            self._messages.appendleft((message, payload))
            self._parsed_at.appendleft(self.began)
            self._waiter = waiter
            waiter.set_result(None)

    def _is_fast(self, message: object, payload: StreamReader) -> bool:
        return (
            isinstance(message, RawRequestMessage)  # else it is aiohttp's record of an error
            and message.version == HttpVersion11
            and not message.upgrade
            and payload.is_eof()
            and payload.exception() is None
            and not self._paused  # the client does not read its responses
            and not self._buffer_paused
            and self._fast_path(self, message, payload)
        )
