"""A FastStream subscriber that does the work of a worker for one postback at a time.

As FastStream's documentation shows: a quorum queue, acknowledged when the handler is done (its
default policy nacks on errors), and a prefetch of 100, so that many handlers run concurrently. The
body has the type bytes, so that nothing is validated twice. uvloop is its default when installed.
"""

import redis.asyncio as redis
import uvloop
from faststream import AckPolicy, FastStream
from faststream.rabbit import (
    Channel,
    ExchangeType,
    QueueType,
    RabbitBroker,
    RabbitExchange,
    RabbitQueue,
)

from shared.postback.event import CONTENT_TYPE
from shared.rabbitmq import topology
from tests.bench.peers.common import (
    AMQP_URL,
    FASTSTREAM_QUEUE,
    INDEX,
    MERGE,
    REDIS_URL,
    due_event,
    prepare,
)

PREFETCH = 100

broker = RabbitBroker(AMQP_URL, default_channel=Channel(on_return_raises=True), logger=None)
app = FastStream(broker, logger=None)
queue = RabbitQueue(FASTSTREAM_QUEUE, queue_type=QueueType.QUORUM)
events = RabbitExchange(topology.EVENTS, type=ExchangeType.TOPIC, durable=True)

_redis = redis.Redis.from_url(REDIS_URL)
_shas: dict[bytes, str] = {}


@app.on_startup
async def load_scripts() -> None:
    """Load the scripts once, without the round trip of redis-py's `Script` for each pipeline."""
    for script in (MERGE, INDEX):
        _shas[script] = await _redis.script_load(script)


@app.after_startup
async def ready() -> None:
    """Print that the worker is ready, for the benchmark."""
    print("ready", flush=True)  # noqa: T201


@broker.subscriber(
    queue,
    channel=Channel(prefetch_count=PREFETCH),
    ack_policy=AckPolicy.NACK_ON_ERROR,
    no_reply=True,
)
async def take(body: bytes) -> None:
    """Decode, merge, publish the event; FastStream acknowledges when this returns."""
    update = prepare(body)
    pipeline = _redis.pipeline(transaction=False)
    key, arguments = update.merge
    pipeline.evalsha(_shas[MERGE], 1, key, *arguments)
    if update.reference:
        key, arguments = update.reference
        pipeline.evalsha(_shas[INDEX], 1, key, *arguments)
    if event := due_event(update, (await pipeline.execute())[0]):
        await broker.publish(
            event.encode(),
            exchange=events,
            routing_key=event.routing_key,
            persist=True,
            content_type=CONTENT_TYPE,
            message_id=event.id,
            message_type=event.type,
            timeout=10,
        )


if __name__ == "__main__":
    uvloop.run(app.run())
