"""A RabbitMQ session: one plain connection and one channel with publisher confirms.

Every call has a time limit. A session does not reconnect, because a connection that reconnects
hides an outage from the code that must react to it; `reconnect` opens the next one. Publishing
uses the channel below aio-pika's, see `confirms`: several publishes may be in progress at once.
"""

import asyncio
import random
from collections.abc import Sequence

import aiormq
from aiormq.exceptions import ChannelPreconditionFailed, PublishError
from pamqp.commands import Basic
from yarl import URL

from shared.cancellation import cancelled_from_outside, raise_lost_cancellation
from shared.errors import (
    BrokerUnavailableError,
    PublishOutcomeUnknownError,
    PublishRejectedError,
    UnpublishableError,
)
from shared.log import mask
from shared.rabbitmq import confirms, topology
from shared.rabbitmq.connection import CONNECT_LIMIT, Connection, close, connect, with_options
from shared.rabbitmq.errors import connection_errors
from shared.rabbitmq.message import Message
from shared.rabbitmq.message_size import learn_max_message_size, max_message_size
from shared.settings.settings import Settings

Result = PublishRejectedError | UnpublishableError | None
"""The result of a publish: None when RabbitMQ has confirmed it.

`PublishRejectedError`: a queue refused it or none is bound; a later publish may succeed.
`UnpublishableError`: it was not sent and can never be published as it is (a header that cannot be
encoded, a body larger than RabbitMQ's `max_message_size`). Do not retry it; change it or set it
aside.
"""


class Session:
    """One connection to RabbitMQ and one channel with publisher confirms on it."""

    def __init__(self, connection: Connection, channel: aiormq.Channel, node: str) -> None:
        self.connection = connection
        self.channel = channel
        self._node = node
        self._closing = channel.closing  # also done when the connection ends

    @property
    def open(self) -> bool:
        return not (self.connection.is_closed or self.channel.is_closed)

    @property
    def largest(self) -> float:
        """Bytes of the largest body that RabbitMQ accepts; infinite as long as it is not known."""
        return max_message_size(self._node)

    def consumes(self, consumer_tag: str) -> bool:
        """Whether the session is open and RabbitMQ has not cancelled this consumer on it."""
        return self.open and confirms.has_consumer(self.channel, consumer_tag)

    async def publish(
        self,
        body: bytes,
        *,
        exchange: str,
        routing_key: str = "",
        properties: Basic.Properties,
        limit: float,
    ) -> None:
        """Publish one persistent, `mandatory` message; return once RabbitMQ has confirmed it.

        Args:
            limit: seconds to wait for the confirm.

        Raises:
            PublishRejectedError: refused by a queue, or no queue is bound.
            UnpublishableError: it can never be published as it is.
            PublishOutcomeUnknownError: no confirm in time, or the connection was lost before it.
        """
        message = Message(body, exchange, routing_key, properties)
        (refusal,) = await self.publish_all([message], limit)
        if refusal is not None:
            raise refusal

    async def publish_all(self, messages: Sequence[Message], limit: float) -> list[Result]:
        """Publish persistent, `mandatory` messages; return once RabbitMQ has answered all.

        Args:
            limit: seconds to wait for all confirms.

        Returns:
            The `Result` of each message, in order. A message that cannot be encoded does not
            affect the others.

        Raises:
            PublishOutcomeUnknownError: not all confirms came in time, or the connection was lost
                before. The messages may be published again: they are not the cause.
        """
        try:
            async with asyncio.timeout(limit):
                refused = await confirms.publish(self.channel, messages, self.largest)
        except TimeoutError as error:
            raise PublishOutcomeUnknownError(f"no confirm within {limit:g} s") from error
        except asyncio.CancelledError as error:
            if cancelled_from_outside():
                raise
            raise PublishOutcomeUnknownError(
                "the connection was closed before the confirm"
            ) from error
        except PublishOutcomeUnknownError as error:
            learn_max_message_size(self._node, error)
            if any(len(message.body) <= self.largest for message in messages):
                raise
            return [
                UnpublishableError(confirms.too_large(len(message.body), self.largest))
                for message in messages
            ]
        return [_result(message, refused.get(at)) for at, message in enumerate(messages)]

    def refused_a_message(self, error: PublishOutcomeUnknownError) -> bool:
        """Whether RabbitMQ closed the channel because of one message; the connection is still open.

        A message can be the cause only if RabbitMQ says `PRECONDITION_FAILED`. Other reasons
        (a missing exchange, a missing permission) are the same for all messages.
        """
        closed_by_rabbitmq = isinstance(error.__cause__, ChannelPreconditionFailed)
        return closed_by_rabbitmq and not self.connection.is_closed

    async def another_channel(self) -> "Session":
        """A session on the same connection with a channel of its own, without consumers.

        Raises:
            BrokerUnavailableError: the connection is lost, or RabbitMQ does not answer.
        """
        return Session(self.connection, await self._new_channel(), self._node)

    async def reopen_channel(self) -> None:
        """Replace a channel that RabbitMQ has closed; the new one has no consumers.

        Raises:
            BrokerUnavailableError: the connection is lost, or RabbitMQ does not answer.
        """
        self.channel = await self._new_channel()
        self._closing = self.channel.closing

    async def _new_channel(self) -> aiormq.Channel:
        with connection_errors():
            async with asyncio.timeout(CONNECT_LIMIT):
                return await _open_channel(self.connection)

    async def lost(self, within: float | None) -> bool:
        """Wait until the connection or the channel is closed; return whether it is.

        Args:
            within: seconds to wait at most; None: no limit.
        """
        await asyncio.wait([self._closing], timeout=within)
        return not self.open

    async def close(self) -> None:
        """Close the connection; see `connection.close`."""
        await close(self.connection)


async def open_session(
    settings: Settings, *, name: str, prefetch: int | None = None, declaring: bool = True
) -> Session:
    """Connect to a RabbitMQ that answers, and declare the topology.

    Several URLs are tried in random order, so that processes spread over the nodes of a cluster.

    Args:
        name: shown in RabbitMQ's list of connections.
        prefetch: messages that a consumer on the session may have unacknowledged.
        declaring: whether to declare the topology.

    Raises:
        BrokerUnavailableError: no URL of `amqp_url` leads to a RabbitMQ that answers; says why,
            for each.
        TopologyConflictError: see `topology.declare`.
    """
    failures = []
    urls = settings.amqp_url.split(",")
    raise_lost_cancellation()
    for url in random.sample(urls, len(urls)):
        try:
            with connection_errors():
                session = await _open(
                    URL(url.strip()), settings, name, prefetch, declaring=declaring
                )
                if cancelled_from_outside():
                    await session.close()
        except BrokerUnavailableError as error:
            failures.append(f"{_without_password(url)}: {error}")
        else:
            return session
    message = f"RabbitMQ cannot be reached ({'; '.join(failures)}); check MMS_AMQP_URL"
    raise BrokerUnavailableError(mask(message))


async def _open(
    url: URL, settings: Settings, name: str, prefetch: int | None, *, declaring: bool
) -> Session:
    connection = await connect(with_options(url, settings), name=name)
    try:
        if declaring:
            await topology.declare(connection, settings)
        async with asyncio.timeout(CONNECT_LIMIT):
            channel = await _open_channel(connection, prefetch)
            return Session(connection, channel, f"{url.host}:{url.port}")
    except BaseException:
        await close(connection)
        raise


async def _open_channel(connection: Connection, prefetch: int | None = None) -> aiormq.Channel:
    opened = await connection.channel(publisher_confirms=True, on_return_raises=True)
    if prefetch is not None:
        await opened.set_qos(prefetch_count=prefetch)
    channel = await opened.get_underlay_channel()
    if not isinstance(channel, aiormq.Channel):  # of the class that `confirms` is written for
        raise TypeError(channel)
    return channel


def _result(message: Message, error: Exception | None) -> Result:
    if error is None or isinstance(error, UnpublishableError):
        return error
    if isinstance(error, PublishError):
        why = (
            f"no queue is bound to {message.exchange}"
            if message.exchange
            else f"there is no queue {message.routing_key}"
        )
    else:
        why = f"a queue of {message.exchange or message.routing_key} refused it"
    refusal = PublishRejectedError(why)
    refusal.__cause__ = error
    return refusal


def _without_password(url: str) -> str:
    """Scheme, host and port of a URL: nothing that could be part of a password."""
    parsed = URL(url.strip())
    return f"{parsed.scheme}://{parsed.host}:{parsed.port or ''}".rstrip(":")
