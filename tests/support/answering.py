"""The HTTP server of the ingress alone, on a real socket: accepted postbacks go to a list."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

from aiohttp import web

from deploy.local.ports import HOST
from ingest.batcher import Batcher
from ingest.http.connections import Connections
from ingest.http.server import Server
from shared.postback.envelope import Arrival
from shared.settings.settings import Settings

TIME_LIMIT = 10.0


SLOW: Final = b"slow"
"""A batch with a body that starts like this takes `COMMIT_TIME`."""

COMMIT_TIME: Final = 0.003
"""Seconds."""

BATCH: Final = "0123456789abcdef"
"""The id of every batch."""


class Answering(NamedTuple):
    """A running server.

    Attributes:
        arrivals: the accepted postbacks.
        complaints: the event loop's reports of exceptions that were not caught.
    """

    port: int
    connections: Connections
    arrivals: list[Arrival]
    complaints: list[str]

    async def says(self, *requests: bytes) -> bytes:
        """Send raw bytes; return all that it sends until it closes the connection."""
        async with asyncio.timeout(TIME_LIMIT):
            reader, writer = await asyncio.open_connection(HOST, self.port)
            try:
                for request in requests:
                    writer.write(request)
                    await writer.drain()
                return await reader.read()
            except ConnectionError:
                return b""
            finally:
                writer.close()

    async def post(self, path: str = "/postbacks", body: bytes = b"x", **headers: str) -> bytes:
        """POST once; return the whole response."""
        lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{''.join(lines)}"
        return await self.says(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    async def status(self, path: str = "/postbacks", body: bytes = b"x", **headers: str) -> int:
        """POST once; return the status of the response."""
        return int((await self.post(path, body, **headers)).split()[1])


@contextlib.asynccontextmanager
async def answering(
    settings: Settings,
    durable: asyncio.Event | None = None,
    *,
    aiohttp_alone: bool = False,
    send_buffer: int = 0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Answering]:
    """A server with these settings on its own port, for as long as the context lasts.

    Args:
        durable: no postback is durable before this is set.
        aiohttp_alone: the same handler and limits, without our connections.
        send_buffer: size in bytes of the kernel's send buffer; 0: the default.
        tls: use HTTPS.
    """
    arrivals: list[Arrival] = []
    complaints: list[str] = []

    async def keep(batch: Sequence[Arrival]) -> str:
        if durable is not None:
            await durable.wait()
        if any(arrival.body.startswith(SLOW) for arrival in batch):
            await asyncio.sleep(COMMIT_TIME)
        arrivals.extend(batch)
        return BATCH

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: complaints.append(repr(context)))
    batcher = Batcher(keep, max_waiting=settings.max_waiting)
    server = Server(settings, batcher)
    connections = server.aiohttp_server(tls)
    serving: web.Server = connections
    if aiohttp_alone:
        serving = web.Server(
            server.handle,
            request_factory=connections.new_request,
            **connections.options,
        )
    runner = web.ServerRunner(serving, shutdown_timeout=1)
    await runner.setup()
    listener = socket.create_server((HOST, 0))
    if send_buffer:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    listening = await loop.create_server(serving, sock=listener)
    async with asyncio.TaskGroup() as parts:
        sweeper = parts.create_task(connections.close_slow())
        parts.create_task(batcher.run())
        try:
            port = listening.sockets[0].getsockname()[1]
            yield Answering(port, connections, arrivals, complaints)
        finally:
            listening.close()
            await runner.cleanup()
            sweeper.cancel()
            batcher.stop()
    loop.set_exception_handler(None)
