"""`mms.dead` of an earlier release, and dead letters in it."""

from collections import Counter

import aio_pika
from aio_pika.abc import AbstractChannel
from pamqp.common import FieldTable

from shared.rabbitmq import topology
from shared.settings.settings import Settings
from tests.support import running

HEADERS: FieldTable = {
    "x-reason": "malformed",
    "x-source": "acme",
    "x-received-at": 1_795_486_200_000_000,
}


async def declare_old(channel: AbstractChannel, settings: Settings) -> None:
    """`mms.dead` as an earlier release declares it."""
    exchange = await channel.declare_exchange(
        topology.DEAD, aio_pika.ExchangeType.FANOUT, durable=True
    )
    queue = await channel.declare_queue(
        topology.DEAD,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            "x-overflow": "reject-publish",
            "x-max-length-bytes": int(settings.queue_max_bytes),
        },
    )
    await queue.bind(exchange)


async def publish(channel: AbstractChannel, *bodies: bytes) -> None:
    exchange = await channel.get_exchange(topology.DEAD, ensure=False)
    for number, body in enumerate(bodies):
        message = aio_pika.Message(
            body,
            headers={**HEADERS},
            content_type="text/xml",
            correlation_id="batch",
            message_id=f"there twice {number // 2}",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await exchange.publish(message, "", mandatory=True)


async def taken(settings: Settings) -> Counter[bytes]:
    """Take all dead letters; each must be as it was published."""
    found: Counter[bytes] = Counter()
    async with running.channel(settings) as channel:
        queue = await channel.get_queue(topology.DEAD)
        while message := await queue.get(no_ack=True, fail=False):
            assert {k: v for k, v in message.headers.items() if k in HEADERS} == HEADERS
            assert (message.content_type, message.correlation_id) == ("text/xml", "batch")
            found[message.body] += 1
    return found
