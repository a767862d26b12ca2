"""Calls of a check to RabbitMQ: each has a time limit and a channel of its own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused
from yarl import URL

from shared.rabbitmq.connection import close, connect
from shared.rabbitmq.errors import ignore_connection_errors
from workers.admin.doctor.finding import CALL_LIMIT

Step = Callable[[AbstractChannel], Awaitable[object]]
"""A function that uses a channel."""

_RIGHTS: Final = (
    "rabbitmqctl set_permissions -p <vhost> <user> '^(mms\\.|amq\\.gen)'"
    " '^(mms\\.|amq\\.(gen|default))' '^(mms\\.|amq\\.gen)'"
)


async def on_channel(connection: AbstractConnection, step: Step) -> None:
    """Run a step on a new channel, because RabbitMQ closes a channel after an error.

    Raises:
        CONNECTION_ERRORS: it failed, or took longer than `CALL_LIMIT`.
    """
    async with asyncio.timeout(CALL_LIMIT):
        opened = await connection.channel(publisher_confirms=False)
        channel = await opened.get_underlay_channel()
        await step(channel)
        with ignore_connection_errors():
            await opened.close()


@contextlib.asynccontextmanager
async def connected(url: URL) -> AsyncIterator[AbstractConnection]:
    """A connection for as long as the context lasts.

    Raises:
        CONNECTION_ERRORS: RabbitMQ does not answer within `CALL_LIMIT` or refuses the connection.
    """
    async with asyncio.timeout(CALL_LIMIT):
        connection = await connect(url, name="mms-admin doctor", limit=CALL_LIMIT)
    try:
        yield connection
    finally:
        await close(connection)


def advice(error: BaseException) -> str:
    """What to do about an error of a call."""
    if isinstance(error, TimeoutError):
        return "A queue has no leader, or the server hangs: see RabbitMQ's log."
    if isinstance(error, ChannelAccessRefused):
        return f"Grant the rights to the user: {_RIGHTS}"
    return "See RabbitMQ's log."
