"""One connection with limits, made of aiohttp's public parts only.

It works with every version of aiohttp. `FastConnection` adds the fast path and stricter limits.
"""

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import hdrs, web
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from ingest.http.responses import SERVER

if TYPE_CHECKING:
    from ingest.http.connections import Connections

HEADERS_LIMIT: Final = 5.0
"""Seconds from a request's first byte to the end of its headers."""

WRITE_LIMIT: Final = 5.0
"""Seconds that a client may leave responses unread when the buffers are full, and seconds that
closing a connection may take."""

MAX_ERROR_TEXT: Final = 400
"""Characters of aiohttp's message about a request that is not HTTP. The message repeats all the
bytes that were sent, escaped."""


class Connection(RequestHandler):
    """One connection.

    Args:
        manager: the server, which limits the number of connections.
        counted: the server has counted this connection already.
        options: aiohttp's own.

    Attributes:
        began: when the headers of the current request were complete, in seconds on the event loop's
            clock.
        headers_since: when the first byte of the next request's headers came, in seconds as
            `time.monotonic` counts them; 0 when none came.
    """

    __slots__ = (
        "_blocked_since",
        "_closing_since",
        "_connections",
        "_counted",
        "_kept_transport",
        "began",
        "headers_since",
    )

    def __init__(
        self,
        manager: "Connections",
        *,
        counted: bool,
        **options: Any,  # noqa: ANN401 (aiohttp's own arguments)
    ) -> None:
        super().__init__(manager, **options)
        self.began = 0.0
        self.headers_since = 0.0
        self._connections = manager
        self._counted = counted
        self._blocked_since = 0.0
        self._closing_since = 0.0
        # aiohttp drops its own reference when it closes, although the client may still be reading.
        self._kept_transport: asyncio.Transport | None = None

    @property
    def peer(self) -> str:
        """The address that the connection comes from; empty when it has none."""
        return self.peername[0] if isinstance(self.peername, tuple) else ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        accepted = cast("asyncio.Transport", transport)
        if not self._counted and not self._connections.reserve_place():
            accepted.abort()
            return
        self._counted = True
        self._kept_transport = accepted
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._counted:
            self._connections.release_place()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if data and not self.headers_since:
            self.headers_since = time.monotonic()
        super().data_received(data)

    def pause_writing(self) -> None:
        self._blocked_since = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._blocked_since = 0.0
        super().resume_writing()

    def begin(self, _payload: StreamReader) -> None:
        """Called when the handler gets a request."""
        self.headers_since = 0.0
        self.began = asyncio.get_running_loop().time()

    def log_access(
        self, request: web.BaseRequest, response: web.StreamResponse, time: float | None
    ) -> None:
        """Called after a response is written: bytes of its request's body began no headers."""
        self.headers_since = 0.0
        super().log_access(request, response, time)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Respond, as aiohttp does, to bytes that are not HTTP and to a defect of the handler."""
        short = message and message[:MAX_ERROR_TEXT]
        response = super().handle_error(request, status, exc, short)
        response.headers[hdrs.SERVER] = SERVER
        return response

    def close_late(self, now: float) -> str:
        """Close the connection when it exceeds a time limit.

        Args:
            now: seconds, as `time.monotonic` counts them.

        Returns:
            The reason as `mms_ingest_connections_closed_total` counts it; empty when it stays open.
        """
        if self._kept_transport is None:
            return ""
        if self._kept_transport.is_closing():
            self._closing_since = self._closing_since or now
        if _is_late(self._blocked_since, WRITE_LIMIT, now) or _is_late(
            self._closing_since, WRITE_LIMIT, now
        ):
            self._kept_transport.abort()  # closing would wait until the client has read everything
            self._kept_transport = None
            return "unread"
        if _is_late(self.headers_since, HEADERS_LIMIT, now) and not self._closing_since:
            self.force_close()
            self._closing_since = now
            return "slow"
        return ""


def _is_late(since: float, limit: float, now: float) -> bool:
    return 0 < since < now - limit
