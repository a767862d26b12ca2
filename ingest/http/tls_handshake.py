"""The TLS handshake of one connection.

The event loop's own TLS tells nobody of a connection before its handshake is done. Here the
connection is counted when it is accepted, so that idle ones cannot use up the process's files.
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
    """Takes a connection, makes it secure, and hands it to a protocol for HTTP.

    Args:
        connections: counts it, and ends the handshake when the server stops.
        context: the server's certificate.
        make: makes the protocol for HTTP.
    """

    def __init__(
        self,
        connections: "Connections",
        context: ssl.SSLContext,
        make: Callable[[], asyncio.Protocol],
    ) -> None:
        self._connections = connections
        self._context = context
        self._make = make
        self._arrived = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        pipe = cast("asyncio.Transport", transport)
        if self._connections.admit():
            self._connections.start(self._secure(pipe))
        else:
            pipe.abort()

    def data_received(self, data: bytes) -> None:
        # The loop may read before `_secure` has begun, whether it is paused or not (uvloop).
        self._arrived += data

    async def _secure(self, transport: asyncio.Transport) -> None:
        early = _Early()
        secure = None
        loop = asyncio.get_running_loop()
        try:
            loop.call_soon(self._pass_on, transport)  # runs once TLS is the transport's protocol
            secure = await loop.start_tls(
                transport,
                early,
                self._context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_LIMIT,
                ssl_shutdown_timeout=WRITE_LIMIT,
            )
        except (OSError, RuntimeError):
            # No TLS, too slow, or gone (for uvloop a RuntimeError, if it was before TLS began):
            # nothing to say, and it comes in any number.
            pass
        finally:
            if secure is None or early.lost:
                transport.abort()
                self._connections.release()
        if secure is not None and not early.lost:
            protocol = self._make()
            secure.set_protocol(protocol)
            protocol.connection_made(secure)
            if early.data:
                protocol.data_received(bytes(early.data))

    def _pass_on(self, transport: asyncio.Transport) -> None:
        """Give TLS what came before it was there; it keeps it until its handshake begins."""
        if (protocol := transport.get_protocol()) is self:
            return  # the connection was gone before TLS began
        tls = cast(
            "asyncio.BufferedProtocol", protocol
        )  # both loops' is one; uvloop's does not say
        while self._arrived:
            buffer = memoryview(tls.get_buffer(len(self._arrived)))
            size = min(len(buffer), len(self._arrived))
            buffer[:size] = self._arrived[:size]
            del self._arrived[:size]
            tls.buffer_updated(size)


class _Early(asyncio.Protocol):
    """Keeps what comes with the end of the handshake, before the protocol for HTTP is there."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, _exc: BaseException | None) -> None:
        self.lost = True
