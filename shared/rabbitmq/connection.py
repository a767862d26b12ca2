"""A plain connection to one RabbitMQ node, closed within a limit also if the node hangs."""

import asyncio
from typing import Final

import aio_pika
from aiormq import TransportFactory
from aiormq.connection import TCPTransportFactory, TLSTransportFactory
from yarl import URL

from shared.rabbitmq.errors import ignore_connection_errors
from shared.settings.settings import Settings

CONNECT_LIMIT: Final = 5.0
"""Seconds for a connection, and for a channel."""

CLOSE_LIMIT: Final = 2.0
"""Seconds for closing a connection."""

HEARTBEAT: Final = 10
"""Seconds; after about twice as long a silent connection counts as lost."""


class Connection(aio_pika.Connection):
    """A connection that can be dropped while data is still to be sent.

    aiormq sends all that is buffered before it closes a socket. If RabbitMQ does not read, that
    takes until aiormq misses the heartbeats, about three times the heartbeat's interval.
    """

    async def connect(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - overrides
        """Connect; called by `aio_pika.connect`."""
        self._socket = _Socket(encrypted=self.url.scheme == "amqps")
        self.kwargs["transport_factory"] = self._socket
        try:
            await super().connect(timeout)
        except BaseException:
            await self.close()  # else aio-pika starts a task for it when this object is deleted
            raise

    def abort(self) -> None:
        """Close the socket at once; what is buffered is dropped."""
        self._socket.abort()


class _Socket(TransportFactory):
    """The socket that aiormq opens."""

    def __init__(self, *, encrypted: bool) -> None:
        self._factory = TLSTransportFactory() if encrypted else TCPTransportFactory()
        self._writer: asyncio.StreamWriter | None = None

    async def create(
        self, url: URL, **options: object
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, self._writer = await self._factory.create(url, **options)
        return reader, self._writer

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()


async def connect(url: URL, *, name: str, limit: float = CONNECT_LIMIT) -> Connection:
    """Connect to a node.

    Args:
        name: shown in RabbitMQ's list of connections.
        limit: seconds.

    Raises:
        CONNECTION_ERRORS: see `shared.rabbitmq.errors`.
    """
    return await aio_pika.connect(
        url,
        timeout=limit,
        client_properties={"connection_name": name},
        connection_class=Connection,
    )


async def close(connection: Connection) -> None:
    """Close a connection, after `CLOSE_LIMIT` without waiting for RabbitMQ; raises no error."""
    giving_up = asyncio.get_running_loop().call_later(CLOSE_LIMIT, connection.abort)
    try:
        with ignore_connection_errors():
            await connection.close()
    finally:
        giving_up.cancel()


def with_options(url: URL, settings: Settings) -> URL:
    """The URL of a node with our heartbeat and `MMS_TLS_CA`, unless it has options of its own."""
    if "heartbeat" not in url.query:
        url = url.update_query(heartbeat=HEARTBEAT)
    if settings.tls_ca and "cafile" not in url.query:
        url = url.update_query(cafile=settings.tls_ca)
    return url
