"""Calls to RabbitMQ about one queue, each on a channel of its own.

RabbitMQ refuses a call by closing its channel.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from aio_pika.abc import AbstractChannel
from aiormq.exceptions import ChannelNotFoundEntity

from shared.errors import BrokerUnavailableError
from shared.rabbitmq import topology
from shared.rabbitmq.errors import connection_errors
from shared.rabbitmq.session import Session

T = TypeVar("T")

CALL_LIMIT: Final = 15.0
"""Seconds that RabbitMQ may take to declare, bind, count or delete."""


async def on_channel(session: Session, call: Callable[[AbstractChannel], Awaitable[T]]) -> T:
    """Make calls on a new channel, and close it.

    Raises:
        BrokerUnavailableError: RabbitMQ refused, does not answer, or the connection is lost.
    """
    with connection_errors():
        async with asyncio.timeout(CALL_LIMIT):
            channel = await session.connection.channel(publisher_confirms=False)
            result = await call(channel)
            await channel.close()
            return result


async def counts(session: Session, queue: str) -> tuple[int, int] | None:
    """The number of ready messages and of consumers of a queue; None: there is no such queue.

    Raises:
        BrokerUnavailableError: RabbitMQ does not answer, or the connection is lost.
    """

    async def declare(channel: AbstractChannel) -> tuple[int, int]:
        found = (await channel.declare_queue(queue, passive=True)).declaration_result
        return found.message_count or 0, found.consumer_count or 0

    try:
        return await on_channel(session, declare)
    except BrokerUnavailableError as error:
        if isinstance(error.__cause__, ChannelNotFoundEntity):
            return None
        raise


async def unbind(session: Session, queue: str) -> None:
    """Remove a queue's binding to the exchange of dead letters.

    Raises:
        BrokerUnavailableError: as `on_channel`.
    """

    async def call(channel: AbstractChannel) -> None:
        declared = await channel.get_queue(queue, ensure=False)
        await declared.unbind(topology.DEAD)

    await on_channel(session, call)


async def delete(session: Session, queue: str) -> None:
    """Delete a queue.

    Raises:
        BrokerUnavailableError: as `on_channel`.
    """

    async def call(channel: AbstractChannel) -> None:
        await channel.queue_delete(queue)

    await on_channel(session, call)
