"""RabbitMQ, with a time limit on every call: open a session, publish and be sure of the answer.

A session is one plain connection with one confirming channel. It does not reconnect: a connection
that heals itself hides an outage from the code that must react to it. Who needs a session for
ever opens the next one itself. Publishing goes through the channel below aio-pika's, see
`confirms`: several publishes may be under way at once.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import aio_pika
import aiormq
from aio_pika.abc import AbstractConnection
from aiormq.exceptions import PublishError
from pamqp.commands import Basic
from yarl import URL

from shared import confirms, topology
from shared.confirms import Message
from shared.errors import (
    BrokerUnavailableError,
    FateUnknownError,
    NotTakenError,
    TopologyConflictError,
)
from shared.log import mask
from shared.settings import Settings

CONNECT_LIMIT: Final = 5.0
CLOSE_LIMIT: Final = 2.0
CHECK_EVERY: Final = 5.0
"""Seconds between two declarations of the topology: a binding that is gone comes back."""

HEARTBEAT: Final = 10
"""Seconds; after about twice as long a silent connection counts as lost."""


class Session:
    """One connection to RabbitMQ and one channel with publisher confirms on it."""

    def __init__(self, connection: AbstractConnection, channel: aiormq.Channel) -> None:
        self.connection = connection
        self.channel = channel
        self._closing = channel.closing  # the channel goes when its connection goes

    @property
    def open(self) -> bool:
        return not (self.connection.is_closed or self.channel.is_closed)

    async def publish(
        self,
        body: bytes,
        *,
        exchange: str,
        routing_key: str = "",
        properties: Basic.Properties,
        limit: float,
    ) -> None:
        """Publish persistently and `mandatory`; return once RabbitMQ has confirmed it.

        Args:
            limit: seconds to wait for the confirm.

        Raises:
            NotTakenError: refused by a queue, or no queue is bound.
            FateUnknownError: no answer in time, or the connection broke before it came.
        """
        message = Message(body, exchange, routing_key, properties)
        (refusal,) = await self.publish_all([message], limit)
        if refusal is not None:
            raise refusal

    async def publish_all(
        self, messages: Sequence[Message], limit: float
    ) -> list[NotTakenError | None]:
        """Publish persistently and `mandatory`; return once RabbitMQ has answered to each.

        Args:
            limit: seconds to wait for all answers.

        Returns:
            For each message None if RabbitMQ has confirmed it, else what `publish` would raise.

        Raises:
            FateUnknownError: not all answers came in time, or the connection broke before.
        """
        try:
            async with asyncio.timeout(limit):
                refused = await confirms.publish(self.channel, messages)
        except TimeoutError as error:
            raise FateUnknownError(f"no confirm within {limit:g} s") from error
        except asyncio.CancelledError as error:
            if _cancelled_from_outside():
                raise
            raise FateUnknownError("the connection was closed before the confirm") from error
        except Exception as error:  # aiormq rejects what waits with whatever closed the channel
            raise FateUnknownError(f"the connection broke before the confirm: {error}") from error
        return [
            _not_taken(message, refused[at]) if at in refused else None
            for at, message in enumerate(messages)
        ]

    async def lost(self, within: float) -> bool:
        """Whether the connection or the channel is no more; waits `within` seconds for it."""
        await asyncio.wait([self._closing], timeout=within)
        return not self.open

    async def close(self) -> None:
        """Close it; gives up after `CLOSE_LIMIT` when the other side does not answer."""
        with _already_broken():
            async with asyncio.timeout(CLOSE_LIMIT):
                await self.connection.close()


async def hold(
    session: Session,
    settings: Settings,
    report: Callable[[str | None], None],
    wanted: Callable[[], bool] = lambda: True,
) -> None:
    """Return when the session is lost or not `wanted`; meanwhile see that the topology stays whole.

    Args:
        report: told at each check what is wrong with the topology, or None.
        wanted: asked at each check.
    """
    while wanted() and not await session.lost(within=CHECK_EVERY):
        try:
            await topology.declare(session.connection, settings)
        except TopologyConflictError as error:
            report(str(error))
        except (TimeoutError, OSError, RuntimeError, aiormq.exceptions.AMQPError):
            return
        else:
            report(None)
        if _cancelled_from_outside():
            raise asyncio.CancelledError  # as in `open_session`


async def open_session(settings: Settings, *, name: str, prefetch: int | None = None) -> Session:
    """Connect to a RabbitMQ that answers and declare the topology.

    Several URLs are tried in random order, so that processes spread over the nodes of a cluster.

    Args:
        name: shown in RabbitMQ's own list of connections.
        prefetch: messages that a consumer on the session may have unacknowledged.

    Raises:
        BrokerUnavailableError: none of `amqp_url` answered; says why, for each.
        TopologyConflictError: see `topology.declare`.
    """
    failures = []
    urls = settings.amqp_url.split(",")
    for url in random.sample(urls, len(urls)):
        try:
            session = await _open(URL(url.strip()), settings, name, prefetch)
        except (TimeoutError, OSError, RuntimeError, aiormq.exceptions.AMQPError) as error:
            failures.append(f"{_shown(url)}: {str(error) or type(error).__name__}")
            continue
        if _cancelled_from_outside():
            await session.close()
            raise asyncio.CancelledError  # a library's `wait_for` of Python 3.11 may lose it
        return session
    message = f"RabbitMQ cannot be reached ({'; '.join(failures)}); check MMS_AMQP_URL"
    raise BrokerUnavailableError(mask(message))


async def _open(url: URL, settings: Settings, name: str, prefetch: int | None) -> Session:
    if "heartbeat" not in url.query:
        url = url.update_query(heartbeat=HEARTBEAT)
    if settings.tls_ca and "cafile" not in url.query:
        url = url.update_query(cafile=settings.tls_ca)
    connection = await aio_pika.connect(
        url, timeout=CONNECT_LIMIT, client_properties={"connection_name": name}
    )
    try:
        await topology.declare(connection, settings)
        async with asyncio.timeout(CONNECT_LIMIT):
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            if prefetch is not None:
                await channel.set_qos(prefetch_count=prefetch)
            return Session(connection, _concrete(await channel.get_underlay_channel()))
    except BaseException:
        with _already_broken():
            await asyncio.wait_for(connection.close(), CLOSE_LIMIT)
        raise


def _concrete(channel: aiormq.abc.AbstractChannel) -> aiormq.Channel:
    """The same channel, of the class that has `basic_publish(wait=False)`."""
    if not isinstance(channel, aiormq.Channel):
        raise TypeError(channel)
    return channel


def _not_taken(message: Message, error: Exception) -> NotTakenError:
    if isinstance(error, PublishError):
        why = f"no queue is bound to {message.exchange}"
    else:
        why = f"a queue of {message.exchange or message.routing_key} refused it"
    refusal = NotTakenError(why)
    refusal.__cause__ = error
    return refusal


def _cancelled_from_outside() -> bool:
    """Whether this task was told to stop, as against a library cancelling what it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@contextlib.contextmanager
def _already_broken() -> Iterator[None]:
    """Closing what is broken may fail in any of these ways; it is closed all the same."""
    with contextlib.suppress(TimeoutError, OSError, RuntimeError, aiormq.exceptions.AMQPError):
        yield


def _shown(url: str) -> str:
    """Where a URL leads, without anything that could be part of a password."""
    parsed = URL(url.strip())
    return f"{parsed.scheme}://{parsed.host}:{parsed.port or ''}".rstrip(":")


async def backoff(attempt: int, *, longest: float = 5.0) -> None:
    """Sleep before attempt number `attempt` (from 0) to reach a server again: 0.1 s, doubling."""
    await asyncio.sleep(min(longest, 0.1 * 2.0 ** min(attempt, 10)))
