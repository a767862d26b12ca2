"""The TLS handshake of one connection.

The event loop's own TLS reports a connection only after the handshake. Here the connection is
counted when it is accepted, so that idle connections cannot use up the process's open files.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from ingest.http.connection import WRITE_LIMIT

if TYPE_CHECKING:
    from ingest.http.connections import Connections

HANDSHAKE_LIMIT: Final = 5.0
"""Seconds that a TLS handshake may take."""


class Handshake(asyncio.Protocol):
    """Accepts a connection, makes the TLS handshake, and passes it to an HTTP protocol.

    Args:
        connections: counts the connection, and cancels the handshake when the server stops.
        context: the server's certificate.
        make_protocol: makes the HTTP protocol.
    """

    def __init__(
        self,
        connections: "Connections",
        context: ssl.SSLContext,
        make_protocol: Callable[[], asyncio.Protocol],
    ) -> None:
        self._connections = connections
        self._context = context
        self._make_protocol = make_protocol
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        accepted = cast("asyncio.Transport", transport)
        if self._connections.reserve_place():
            self._connections.start_handshake(self._make_secure(accepted))
        else:
            accepted.abort()

    def data_received(self, data: bytes) -> None:
        # uvloop may read before `_make_secure` begins, even when reading is paused.
        self._received += data

    async def _make_secure(self, transport: asyncio.Transport) -> None:
        early = _EarlyData()
        secure = None
        loop = asyncio.get_running_loop()
        try:
            loop.call_soon(self._pass_on, transport)  # runs when TLS is the transport's protocol
            secure = await loop.start_tls(
                transport,
                early,
                self._context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_LIMIT,
                ssl_shutdown_timeout=WRITE_LIMIT,
            )
        except (OSError, RuntimeError):
            # Not TLS, too slow, or closed (a RuntimeError in uvloop when it was before TLS began).
            # Not logged: clients can cause any number of these.
            pass
        finally:
            if secure is None or early.lost:
                transport.abort()
                self._connections.release_place()
        if secure is not None and not early.lost:
            protocol = self._make_protocol()
            secure.set_protocol(protocol)
            protocol.connection_made(secure)
            if early.data:
                protocol.data_received(bytes(early.data))

    def _pass_on(self, transport: asyncio.Transport) -> None:
        """Pass the bytes that came before TLS to it; it keeps them until its handshake begins."""
        if (protocol := transport.get_protocol()) is self:
            return  # the connection was closed before TLS began
        # True for both loops; uvloop's class does not declare it.
        tls = cast("asyncio.BufferedProtocol", protocol)
        while self._received:
            buffer = memoryview(tls.get_buffer(len(self._received)))
            size = min(len(buffer), len(self._received))
            buffer[:size] = self._received[:size]
            del self._received[:size]
            tls.buffer_updated(size)


class _EarlyData(asyncio.Protocol):
    """Keeps bytes that come with the end of the handshake, before the HTTP protocol is set."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, _exc: BaseException | None) -> None:
        self.lost = True
