"""Publish messages one by one, with what aiormq documents; slower than `confirms`, never wrong.

`confirms` uses this with a version of aiormq that it was not tested with.
"""

import asyncio
from collections.abc import Mapping

import aiormq
from aiormq.exceptions import DeliveryError, PublishError
from pamqp import frame
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from shared.errors import BrokerUnavailableError, PublishOutcomeUnknownError
from shared.rabbitmq.errors import connection_errors
from shared.rabbitmq.message import Message


def check(message: Message) -> None:
    """Return if a message can be encoded.

    Raises:
        Exception: pamqp's, which says why it cannot.
    """
    properties = message.properties
    frame.marshal(Basic.Publish(exchange=message.exchange, routing_key=message.routing_key), 1)
    frame.marshal(ContentHeader(body_size=len(message.body), properties=properties), 1)


async def publish(
    channel: aiormq.Channel, messages: Mapping[int, Message], refused: dict[int, Exception]
) -> None:
    """Publish persistent, `mandatory` messages; return once RabbitMQ has answered each.

    Args:
        messages: can be encoded.
        refused: why a message was not accepted is added here, by its index.

    Raises:
        PublishOutcomeUnknownError: the channel ended; some messages may have been taken. Its cause
            is the error that ended the channel.
    """
    failures: list[BrokerUnavailableError] = []
    async with asyncio.TaskGroup() as publishes:  # their first step queues them in this order
        for index, message in messages.items():
            publishes.create_task(_publish(channel, index, message, refused, failures))
    if failures:
        cause = failures[0].__cause__
        raise PublishOutcomeUnknownError(
            f"the connection broke before the confirm: {cause}"
        ) from cause


async def _publish(
    channel: aiormq.Channel,
    index: int,
    message: Message,
    refused: dict[int, Exception],
    failures: list[BrokerUnavailableError],
) -> None:
    try:
        # aiormq also cancels publishes when a channel ends. A task group would not report that.
        with connection_errors():
            try:
                await channel.basic_publish(
                    message.body,
                    exchange=message.exchange,
                    routing_key=message.routing_key,
                    properties=message.properties,
                    mandatory=True,
                )
            except (PublishError, DeliveryError) as error:
                refused[index] = error
    except BrokerUnavailableError as error:
        failures.append(error)
