"""Removes all of our exchanges, queues and streams from RabbitMQ."""

import asyncio

import aio_pika

from shared.rabbitmq import topology


async def delete_topology(url: str) -> None:
    """Delete everything that `topology.declare` declares, with its messages."""
    async with asyncio.timeout(30), await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        for queue in (
            topology.STATE_QUEUE,
            topology.ARCHIVE,
            topology.EVENT_LOG,
            topology.DEAD,
        ):
            await channel.queue_delete(queue)
        for exchange in (topology.POSTBACKS, topology.EVENTS, topology.DEAD):
            await channel.exchange_delete(exchange)
