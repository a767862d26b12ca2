"""A TCP proxy that can fail: reset, stall, delay, refuse."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator

CHUNK = 64 * 1024


class Proxy:
    """Forwards from its own port to another port of this machine.

    Attributes:
        port: the port to connect to.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._delay = 0.0
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    def stall(self) -> None:
        """Stop forwarding and keep every connection open, like a black hole."""
        self._flowing.clear()

    def slow(self, delay: float) -> None:
        """Delay every chunk by this many seconds."""
        self._delay = delay

    def reset(self) -> None:
        """Cut every connection with a TCP reset."""
        for writer in self._writers:
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            writer.transport.abort()

    def refuse(self) -> None:
        """Cut every connection, and each new one immediately."""
        self._refusing = True
        self.reset()

    def heal(self) -> None:
        """Forward everything without delay again."""
        self._delay = 0.0
        self._refusing = False
        self._flowing.set()

    async def serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """Handle one connection."""
        with contextlib.suppress(OSError):
            self._writers.add(to_client)
            if self._refusing:
                self.reset()
                return
            server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(to_server)
            try:
                async with asyncio.TaskGroup() as pumps:
                    pumps.create_task(self._pump(client, to_server))
                    pumps.create_task(self._pump(server, to_client))
            finally:
                to_server.transport.abort()
                self._writers.discard(to_server)
        to_client.transport.abort()
        self._writers.discard(to_client)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(CHUNK):
                if self._delay:
                    await asyncio.sleep(self._delay)
                await self._flowing.wait()
                target.write(chunk)
                await target.drain()
        target.transport.abort()


@contextlib.asynccontextmanager
async def proxied(target: int) -> AsyncIterator[Proxy]:
    """A proxy in front of a port, for as long as the context lasts."""
    proxy = Proxy(target)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        proxy.heal()
        server.close()
        proxy.reset()
