"""RabbitMQ, with a time limit on every call: open a session, publish and be sure of the answer.

A session is one plain connection with one confirming channel. It does not reconnect: a connection
that heals itself hides an outage from the code that must react to it. Who needs a session for
ever opens the next one itself. Publishing goes through the channel below aio-pika's, see
`confirms`: several publishes may be under way at once.
"""

import asyncio
import contextlib
import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import aio_pika
import aiormq
from aio_pika.abc import AbstractConnection
from aiormq.exceptions import AMQPError, PublishError
from pamqp.commands import Basic
from pamqp.exceptions import PAMQPException
from yarl import URL

from shared.errors import (
    BrokerUnavailableError,
    PublishOutcomeUnknownError,
    PublishRejectedError,
    TopologyConflictError,
    UnpublishableError,
)
from shared.log import mask
from shared.rabbitmq import confirms, topology
from shared.rabbitmq.confirms import Message
from shared.settings.settings import Settings

CONNECT_LIMIT: Final = 5.0
CLOSE_LIMIT: Final = 2.0
CHECK_EVERY: Final = 5.0
"""Seconds between two declarations of the topology: a binding that is gone comes back."""

HEARTBEAT: Final = 10
"""Seconds; after about twice as long a silent connection counts as lost."""

_LOST: Final = (
    TimeoutError,
    OSError,
    EOFError,
    StopAsyncIteration,  # aiormq, when the other side has closed before the first answer
    RuntimeError,
    ValueError,
    AMQPError,
    PAMQPException,
)
"""What the libraries raise when a connection cannot be made, is no more, or speaks no AMQP."""


Result = PublishRejectedError | UnpublishableError | None
"""What became of a published message: None when RabbitMQ has confirmed it.

`PublishRejectedError`: a queue refused it or none is bound; published later it may be taken.
`UnpublishableError`: it was not sent and never can be as it is (a header that cannot be encoded, a
body larger than RabbitMQ's `max_message_size`). It must be changed or set aside, not tried again.
"""

# By node. It does not change while a node runs, and is told only by closing the channel on somebody
# who exceeds it.
_max_message_sizes: Final[dict[str, int]] = {}


def forget_max_message_sizes() -> None:
    """Forget what nodes have told of their limits, as a process that has just started."""
    _max_message_sizes.clear()


class Session:
    """One connection to RabbitMQ and one channel with publisher confirms on it."""

    def __init__(self, connection: AbstractConnection, channel: aiormq.Channel, node: str) -> None:
        self.connection = connection
        self.channel = channel
        self._node = node
        self._closing = channel.closing  # the channel goes when its connection goes

    @property
    def open(self) -> bool:
        return not (self.connection.is_closed or self.channel.is_closed)

    @property
    def largest(self) -> float:
        """Bytes of the largest body that RabbitMQ takes, as far as it has told this process."""
        return _max_message_sizes.get(self._node, math.inf)

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
            PublishRejectedError: refused by a queue, or no queue is bound.
            UnpublishableError: it can never be published as it is.
            PublishOutcomeUnknownError: no answer in time, or the connection broke before it came.
        """
        message = Message(body, exchange, routing_key, properties)
        (refusal,) = await self.publish_all([message], limit)
        if refusal is not None:
            raise refusal

    async def publish_all(self, messages: Sequence[Message], limit: float) -> list[Result]:
        """Publish persistently and `mandatory`; return once RabbitMQ has answered to each.

        Args:
            limit: seconds to wait for all answers.

        Returns:
            For each message, in order, its `Result`: None if RabbitMQ has confirmed it, else
            why not. One that cannot be encoded does not keep its neighbours from being published.

        Raises:
            PublishOutcomeUnknownError: not all answers came in time, or the connection broke
                before. Only a connection causes it, so what was published may be published again.
        """
        try:
            async with asyncio.timeout(limit):
                refused = await confirms.publish(self.channel, messages, self.largest)
        except TimeoutError as error:
            raise PublishOutcomeUnknownError(f"no confirm within {limit:g} s") from error
        except asyncio.CancelledError as error:
            if _cancelled_from_outside():
                raise
            raise PublishOutcomeUnknownError(
                "the connection was closed before the confirm"
            ) from error
        except PublishOutcomeUnknownError as error:
            if (largest := _max_message_size(error)) is not None:
                _max_message_sizes[self._node] = largest
            if any(len(message.body) <= self.largest for message in messages):
                raise
            return [
                UnpublishableError(confirms.too_large(len(message.body), self.largest))
                for message in messages
            ]
        return [_result(message, refused.get(at)) for at, message in enumerate(messages)]

    def refused_a_message(self, error: PublishOutcomeUnknownError) -> bool:
        """Whether RabbitMQ closed the channel for a message's sake; the connection is still there.

        A message may be the cause only where RabbitMQ says `PRECONDITION_FAILED`. Other reasons
        (an exchange that is gone, a right that is missing) are the same for all messages.
        """
        closed_by_rabbitmq = isinstance(
            error.__cause__, aiormq.exceptions.ChannelPreconditionFailed
        )
        return closed_by_rabbitmq and not self.connection.is_closed

    async def another_channel(self) -> "Session":
        """The same connection with another channel, with confirms and without consumers.

        Raises:
            BrokerUnavailableError: the connection is no more, or RabbitMQ did not answer.
        """
        return Session(self.connection, await self._new_channel(), self._node)

    async def reopen_channel(self) -> None:
        """Go on with a new channel in place of one that RabbitMQ has closed; it has no consumers.

        Raises:
            BrokerUnavailableError: the connection is no more, or RabbitMQ did not answer.
        """
        self.channel = await self._new_channel()
        self._closing = self.channel.closing

    async def _new_channel(self) -> aiormq.Channel:
        with connection_errors():
            async with asyncio.timeout(CONNECT_LIMIT):
                channel = await self.connection.channel(
                    publisher_confirms=True, on_return_raises=True
                )
                return _concrete(await channel.get_underlay_channel())

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
            with connection_errors():
                await topology.declare(session.connection, settings)
        except TopologyConflictError as error:
            report(str(error))
        except BrokerUnavailableError:
            return
        else:
            report(None)


async def open_session(
    settings: Settings, *, name: str, prefetch: int | None = None, declaring: bool = True
) -> Session:
    """Connect to a RabbitMQ that answers and declare the topology.

    Several URLs are tried in random order, so that processes spread over the nodes of a cluster.

    Args:
        name: shown in RabbitMQ's own list of connections.
        prefetch: messages that a consumer on the session may have unacknowledged.
        declaring: whether to declare the topology.

    Raises:
        BrokerUnavailableError: none of `amqp_url` answered; says why, for each.
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
                if _cancelled_from_outside():
                    await session.close()
        except BrokerUnavailableError as error:
            failures.append(f"{_shown(url)}: {error}")
        else:
            return session
    message = f"RabbitMQ cannot be reached ({'; '.join(failures)}); check MMS_AMQP_URL"
    raise BrokerUnavailableError(mask(message))


def with_options(url: URL, settings: Settings) -> URL:
    """The URL of a node with our heartbeat and `MMS_TLS_CA`, unless it names others itself."""
    if "heartbeat" not in url.query:
        url = url.update_query(heartbeat=HEARTBEAT)
    if settings.tls_ca and "cafile" not in url.query:
        url = url.update_query(cafile=settings.tls_ca)
    return url


async def _open(
    url: URL, settings: Settings, name: str, prefetch: int | None, *, declaring: bool
) -> Session:
    url = with_options(url, settings)
    connection = await aio_pika.connect(
        url, timeout=CONNECT_LIMIT, client_properties={"connection_name": name}
    )
    try:
        if declaring:
            await topology.declare(connection, settings)
        async with asyncio.timeout(CONNECT_LIMIT):
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            if prefetch is not None:
                await channel.set_qos(prefetch_count=prefetch)
            underlay = _concrete(await channel.get_underlay_channel())
            return Session(connection, underlay, f"{url.host}:{url.port}")
    except BaseException:
        with _already_broken():
            async with asyncio.timeout(CLOSE_LIMIT):
                await connection.close()
        raise


def _concrete(channel: aiormq.abc.AbstractChannel) -> aiormq.Channel:
    """The same channel, of the class that has `basic_publish(wait=False)`."""
    if not isinstance(channel, aiormq.Channel):
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


_TOO_LARGE: Final = re.compile(r"message size \d+ is larger than (?:configured )?max size (\d+)")


def _max_message_size(error: PublishOutcomeUnknownError) -> int | None:
    """RabbitMQ's limit of a message, when exceeding it is what closed the channel."""
    cause = error.__cause__
    if not isinstance(cause, aiormq.exceptions.ChannelPreconditionFailed):
        return None
    told = _TOO_LARGE.search(str(cause))
    return int(told[1]) if told else None


def _cancelled_from_outside() -> bool:
    """Whether this task was told to stop, as against a library cancelling what it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def raise_lost_cancellation() -> None:
    """Raise the `CancelledError` that a library has lost, if it has lost one.

    `asyncio.wait_for` of Python 3.11 loses it when what it waits for is done at the same moment;
    others turn it into an error of their own. Every loop that goes on after an error calls this.
    """
    if _cancelled_from_outside():
        raise asyncio.CancelledError


@contextlib.contextmanager
def connection_errors(what: str = "") -> Iterator[None]:
    """Whatever the libraries raise at the end of a connection becomes `BrokerUnavailableError`.

    aiormq also rejects what waits with a bare `Exception`, or with a `CancelledError` although
    nobody cancelled this task. A cancellation that a library has lost is raised after all.

    Args:
        what: could not be done; begins the error's text.

    Raises:
        BrokerUnavailableError: with the library's error as its cause.
    """
    prefix = f"{what}: " if what else ""
    try:
        yield
    except _LOST as error:
        raise_lost_cancellation()
        raise BrokerUnavailableError(prefix + (str(error) or type(error).__name__)) from error
    except asyncio.CancelledError as error:
        raise_lost_cancellation()
        raise BrokerUnavailableError(f"{prefix}the connection was closed") from error
    except Exception as error:
        raise_lost_cancellation()
        if type(error) is not Exception:
            raise
        raise BrokerUnavailableError(f"{prefix}the connection was closed") from error
    raise_lost_cancellation()


@contextlib.contextmanager
def _already_broken() -> Iterator[None]:
    """Closing what is broken may fail in any of these ways; it is closed all the same."""
    with contextlib.suppress(*_LOST):
        yield


def _shown(url: str) -> str:
    """Where a URL leads, without anything that could be part of a password."""
    parsed = URL(url.strip())
    return f"{parsed.scheme}://{parsed.host}:{parsed.port or ''}".rstrip(":")


async def backoff(attempt: int, *, longest: float = 5.0) -> None:
    """Sleep before attempt number `attempt` (from 0) to reach a server again: 0.1 s, doubling."""
    raise_lost_cancellation()
    await asyncio.sleep(min(longest, 0.1 * 2.0 ** min(attempt, 10)))
