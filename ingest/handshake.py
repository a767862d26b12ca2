"""The TLS handshake of one connection.

The event loop's own TLS tells nobody of a connection before its handshake is done. Here the
connection is counted when it is accepted, so that idle ones cannot use up the process's files.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from ingest.plain import WRITE_LIMIT

if TYPE_CHECKING:
    from ingest.connections import Connections

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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        pipe = cast("asyncio.Transport", transport)
        if self._connections.admit():
            self._connections.start(self._secure(pipe))
        else:
            pipe.abort()

    async def _secure(self, transport: asyncio.Transport) -> None:
        early = _Early()
        secure = None
        try:
            secure = await asyncio.get_running_loop().start_tls(
                transport,
                early,
                self._context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_LIMIT,
                ssl_shutdown_timeout=WRITE_LIMIT,
            )
        except OSError:  # no TLS, too slow, or gone: nothing to say, and it comes in any number
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


class _Early(asyncio.Protocol):
    """Keeps what comes with the end of the handshake, before the protocol for HTTP is there."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, _exc: BaseException | None) -> None:
        self.lost = True
