"""The exchanges, queues and streams. Every process declares them; the first one creates them.

Declaring is idempotent: what exists stays as it is, and what is missing is created. What exists and
differs is a conflict, which only an operator can resolve.
"""

import asyncio
import re
from typing import Final, NamedTuple

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection

from shared.errors import NotDeclaredError, TopologyConflictError
from shared.rabbitmq.errors import ignore_connection_errors
from shared.settings.settings import Settings

POSTBACKS: Final = "mms.postbacks"
STATE_QUEUE: Final = "mms.postbacks.state"
ARCHIVE: Final = "mms.postbacks.archive"
EVENTS: Final = "mms.events"
EVENT_LOG: Final = "mms.events.log"
DEAD: Final = "mms.dead"

STREAMS: Final = (EVENT_LOG, ARCHIVE)
QUEUES: Final = (DEAD, STATE_QUEUE, *STREAMS)

DEAD_DELIVERY_LIMIT: Final = 2**31 - 1
"""Deliveries of a dead letter before RabbitMQ removes it. Reading one is a delivery, so the limit
must never be reached. It has to be set: RabbitMQ 4 has a default of 20."""

TIME_LIMIT: Final = 5.0
"""Seconds that a whole declaration may take."""


class _Queue(NamedTuple):
    name: str
    exchange: str
    routing_key: str
    arguments: dict[str, str | int]


_EXCHANGES: Final = {
    POSTBACKS: aio_pika.ExchangeType.FANOUT,
    EVENTS: aio_pika.ExchangeType.TOPIC,
    DEAD: aio_pika.ExchangeType.FANOUT,
}


EXCHANGES: Final = tuple(_EXCHANGES)


def _queues(settings: Settings) -> list[_Queue]:
    quorum: dict[str, str | int] = {
        "x-queue-type": "quorum",
        "x-max-length-bytes": int(settings.queue_max_bytes),
    }
    stream: dict[str, str | int] = {
        "x-queue-type": "stream",
        "x-max-age": f"{settings.archive_max_age:.0f}s",
        "x-max-length-bytes": int(settings.archive_max_bytes),
        "x-stream-max-segment-size-bytes": min(100_000_000, int(settings.archive_max_bytes) // 4),
    }
    if settings.replicas:
        quorum["x-quorum-initial-group-size"] = settings.replicas
        stream["x-initial-cluster-size"] = settings.replicas
    dead: dict[str, str | int] = {
        # A full queue that refuses would stop the workers. The archive still has what is dropped.
        "x-overflow": "drop-head",
        "x-delivery-limit": DEAD_DELIVERY_LIMIT,
    }
    state: dict[str, str | int] = {
        "x-overflow": "reject-publish",
        "x-delivery-limit": settings.delivery_limit,
        "x-dead-letter-exchange": DEAD,
        # The default strategy, at-most-once, can lose messages.
        "x-dead-letter-strategy": "at-least-once",
    }
    return [
        # `mms.dead` comes first: the input queue dead-letters to it from the start.
        _Queue(DEAD, DEAD, "", quorum | dead),
        _Queue(EVENT_LOG, EVENTS, "#", stream),
        _Queue(ARCHIVE, POSTBACKS, "", stream),
        _Queue(STATE_QUEUE, POSTBACKS, "", quorum | state),
    ]


async def declare(connection: AbstractConnection, settings: Settings, *, bind: bool = True) -> None:
    """Declare the whole topology, on a channel of its own.

    Args:
        bind: also bind the queues. Without it nothing changes if everything exists.

    Raises:
        TopologyConflictError: a queue or exchange exists and differs; the message names it, the
            difference, and what to do.
        TimeoutError: RabbitMQ did not answer within `TIME_LIMIT`.
        AMQPError, ConnectionError: the connection was lost.
    """
    async with asyncio.timeout(TIME_LIMIT):
        channel = await connection.channel(publisher_confirms=False)
        declaring = ""
        try:
            for declaring, kind in _EXCHANGES.items():
                await channel.declare_exchange(declaring, kind, durable=True)
            for queue in _queues(settings):
                declaring = queue.name
                await _declare_queue(channel, queue, bind=bind)
        except aiormq.exceptions.ChannelPreconditionFailed as error:
            raise TopologyConflictError(_conflict(declaring, str(error))) from error
        finally:
            with ignore_connection_errors():
                await channel.close()


async def declare_dead(channel: AbstractChannel, settings: Settings) -> None:
    """Declare and bind `mms.dead`; RabbitMQ closes the channel if it exists and differs.

    Raises:
        TopologyConflictError: it differs from what we declare.
        AMQPError, ConnectionError: the connection was lost.
    """
    (queue,) = (each for each in _queues(settings) if each.name == DEAD)
    try:
        await channel.declare_exchange(DEAD, _EXCHANGES[DEAD], durable=True)
        await _declare_queue(channel, queue, bind=True)
    except aiormq.exceptions.ChannelPreconditionFailed as error:
        raise TopologyConflictError(_conflict(DEAD, str(error))) from error


async def require(
    connection: AbstractConnection, settings: Settings, exchange: str, queue: str
) -> None:
    """Check that an exchange and a queue exist, without changing anything; for readers.

    The arguments of `mms.dead` are compared too: with other ones, reading can remove dead letters.

    Raises:
        NotDeclaredError: one of them is missing.
        TopologyConflictError: `mms.dead` differs from what we declare.
        TimeoutError: RabbitMQ did not answer within `TIME_LIMIT`.
        AMQPError, ConnectionError: the connection was lost.
    """
    async with asyncio.timeout(TIME_LIMIT):
        channel = await connection.channel(publisher_confirms=False)
        try:
            await channel.get_exchange(exchange, ensure=True)
            await channel.get_queue(queue, ensure=True)
            for each in _queues(settings):
                if each.name == queue == DEAD:  # it exists, so declaring changes nothing
                    await _declare_queue(channel, each, bind=False)
        except aiormq.exceptions.ChannelNotFoundEntity as error:
            raise NotDeclaredError(
                f"RabbitMQ does not have the exchange {exchange} and the queue {queue}; start an"
                " mms-ingest or mms-worker, which declares them"
            ) from error
        except aiormq.exceptions.ChannelPreconditionFailed as error:
            raise TopologyConflictError(_conflict(queue, str(error))) from error
        finally:
            with ignore_connection_errors():
                await channel.close()


async def _declare_queue(channel: AbstractChannel, queue: _Queue, *, bind: bool) -> None:
    declared = await channel.declare_queue(
        queue.name, durable=True, arguments=dict(queue.arguments)
    )
    if bind:
        await declared.bind(queue.exchange, queue.routing_key)


_INEQUIVALENT: Final = re.compile(r"inequivalent arg '(.+?)'.*?received (.+?) but current is (.+)")


def _conflict(name: str, error: str) -> str:
    match = _INEQUIVALENT.search(error)
    difference = (
        f"its {match[1]} is {match[3].rstrip('>')}; we declare {match[2]}" if match else error
    )
    remedy = (
        "run `mms-admin topology upgrade`, which creates it again and keeps the dead letters"
        if name == DEAD
        else f"drain and delete {name}; it is then created again"
    )
    return (
        f"RabbitMQ already has {name}, and it differs: {difference}. Give all processes the "
        f"setting that it was created with, or {remedy}."
    )
