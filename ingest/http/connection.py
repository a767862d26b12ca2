"""One connection with limits, made of aiohttp's public parts alone.

It works with every version of aiohttp. `Connection` adds the fast path and stricter limits.
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
"""Seconds that a client may leave answers unread when there is no room for more of them, and
seconds that closing a connection may take."""

ERROR_TEXT: Final = 400
"""Characters of what aiohttp says of a request that is no HTTP; it repeats what was sent, all of
it, and escapes it."""


class PlainConnection(RequestHandler):
    """One connection.

    Args:
        manager: the server; it says whether there is room for one connection more.
        admitted: the server has counted this connection already.
        limits: what aiohttp takes.

    Attributes:
        began: when the headers of the request that is being answered were complete, in seconds on
            the event loop's clock.
        headers_since: when the first byte came that belongs to no request yet; 0 if there is none.
    """

    __slots__ = (
        "_admitted",
        "_blocked_since",
        "_closing_since",
        "_connections",
        "_pipe",
        "began",
        "headers_since",
    )

    def __init__(
        self,
        manager: "Connections",
        *,
        admitted: bool,
        **limits: Any,  # noqa: ANN401 (aiohttp's own arguments)
    ) -> None:
        super().__init__(manager, **limits)
        self.began = 0.0
        self.headers_since = 0.0
        self._connections = manager
        self._admitted = admitted
        self._blocked_since = 0.0
        self._closing_since = 0.0
        self._pipe: asyncio.Transport | None = None

    @property
    def peer(self) -> str:
        """The address that it comes from; empty if it has none."""
        return self.peername[0] if isinstance(self.peername, tuple) else ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        pipe = cast("asyncio.Transport", transport)
        if not self._admitted and not self._connections.admit():
            pipe.abort()
            return
        self._admitted = True
        self._pipe = pipe
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._admitted:
            self._connections.release()
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
        """Called once the answer is written: what came of its body began no headers."""
        self.headers_since = 0.0
        super().log_access(request, response, time)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer, as aiohttp does, what is no HTTP, and to a defect of ours."""
        short = message and message[:ERROR_TEXT]
        response = super().handle_error(request, status, exc, short)
        response.headers[hdrs.SERVER] = SERVER
        return response

    def close_late(self, now: float) -> str:
        """Close what takes longer than its limit; the reason, empty if nothing does.

        Args:
            now: seconds, as `time.monotonic` counts them.
        """
        if self._pipe is None:
            return ""
        if self._pipe.is_closing():
            self._closing_since = self._closing_since or now
        if _is_late(self._blocked_since, WRITE_LIMIT, now) or _is_late(
            self._closing_since, WRITE_LIMIT, now
        ):
            self._pipe.abort()  # closing would wait until the client has read everything
            self._pipe = None
            return "unread"
        if _is_late(self.headers_since, HEADERS_LIMIT, now) and not self._closing_since:
            self.force_close()
            self._closing_since = now
            return "slow"
        return ""


def _is_late(since: float, limit: float, now: float) -> bool:
    return 0 < since < now - limit
