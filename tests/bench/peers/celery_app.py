"""Celery: the task that does the work of a worker for one postback, and the settings.

    celery -A tests.bench.peers.celery_app worker --concurrency 1 ...

Settings that differ from Celery's own, each from its documentation:
  task_default_queue_type quorum, worker_detect_quorum_queues: the same guarantee as ours.
  confirm_publish (kombu): a publish returns after RabbitMQ's confirm.
  task_acks_late, task_reject_on_worker_lost: a task is acknowledged when it is done.
  task_ignore_result, no result backend, no task events: nothing unused is stored.
  worker_prefetch_multiplier 64: "if you have many short tasks, 50 or 150 may be better".
  broker_pool_limit: as many connections as FastAPI has threads, so that no thread waits for one.
On the command line --without-gossip --without-mingle --without-heartbeat: fewer messages.
"""

from typing import Final

import redis
from celery import Celery
from kombu import Exchange

from shared.postback.event import CONTENT_TYPE
from shared.rabbitmq import topology
from tests.bench.peers.common import (
    AMQP_URL,
    CELERY_QUEUE,
    INDEX,
    MERGE,
    REDIS_URL,
    due_event,
    prepare,
)

THREADS: Final = 40
"""FastAPI's threads for handlers that block."""

app = Celery("bench", broker=AMQP_URL)
app.conf.update(
    task_default_queue=CELERY_QUEUE,
    task_default_queue_type="quorum",
    worker_detect_quorum_queues=True,
    broker_transport_options={"confirm_publish": True},
    broker_pool_limit=THREADS,
    broker_connection_retry_on_startup=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=64,
    worker_hijack_root_logger=False,
)

_redis = redis.Redis.from_url(REDIS_URL)
_shas: dict[bytes, str] = {}
_events = Exchange(topology.EVENTS, type="topic", durable=True)


@app.task
def take(body: str) -> None:
    """Decode, merge, publish the event; Celery acknowledges when this returns."""
    update = prepare(body.encode())
    pipeline = _redis.pipeline(transaction=False)
    key, arguments = update.merge
    pipeline.evalsha(_sha(MERGE), 1, key, *arguments)
    if update.reference:
        key, arguments = update.reference
        pipeline.evalsha(_sha(INDEX), 1, key, *arguments)
    if event := due_event(update, pipeline.execute()[0]):
        with app.producer_pool.acquire(block=True) as producer:
            producer.publish(
                event.encode(),
                exchange=_events,
                routing_key=event.routing_key,
                content_type=CONTENT_TYPE,
                content_encoding="binary",
                delivery_mode="persistent",
                mandatory=True,
                message_id=event.id,
                type=event.type,
            )


def _sha(script: bytes) -> str:
    """Load a script once for each process, without the round trip of redis-py's `Script`."""
    if script not in _shas:
        _shas[script] = _redis.script_load(script)
    return _shas[script]
