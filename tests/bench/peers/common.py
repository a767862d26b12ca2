"""The servers' addresses, the peers' queues, and the work for one postback."""

import os
import time
from pathlib import Path
from typing import Final, NamedTuple

from shared.postback import record
from shared.postback.envelope import Arrival
from shared.postback.event import Event
from shared.postback.normalise import decode
from shared.postback.stored import format_2, read_record
from workers.verdicts import Merged, Received, decode_verdicts, due_events, notify_digits

AMQP_URL: Final = os.environ.get("MMS_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
REDIS_URL: Final = os.environ.get("MMS_REDIS_URL", "redis://127.0.0.1:6379/0")
HOST: Final = "127.0.0.1"

AIOHTTP_QUEUE: Final = "bench.aiohttp"
CELERY_QUEUE: Final = "bench.celery"
FASTSTREAM_QUEUE: Final = "bench.faststream"
NODE_QUEUE: Final = "bench.node"
"""Its name in `peers/node/rabbitmq.mjs`."""
QUEUES: Final = (AIOHTTP_QUEUE, CELERY_QUEUE, FASTSTREAM_QUEUE, NODE_QUEUE)
"""All are durable quorum queues."""

QUORUM: Final = {"x-queue-type": "quorum"}

TTL: Final = 7 * 86400
_REFERENCES: Final = 64
_FORMAT: Final = 2
_LUA: Final = Path(__file__).parents[3] / "workers"
MERGE: Final = (_LUA / "merge.lua").read_bytes()
INDEX: Final = (_LUA / "index.lua").read_bytes()


class Update(NamedTuple):
    """The merge of one postback into Redis: the same two script calls as in our worker.

    Attributes:
        merge: key and arguments for `merge.lua`.
        reference: key and arguments for `index.lua`.
    """

    received: Received
    merge: tuple[str, tuple[str | bytes | int, ...]]
    reference: tuple[str, tuple[str | bytes | int, ...]] | None


def prepare(body: bytes) -> Update:
    """Decode one postback of the source `default`, and prepare the changes in Redis."""
    normalised = decode("default", body)
    received_at = time.time_ns() // 1000
    received = Received(Arrival(received_at, "default", "", body), normalised, redelivered=False)
    notify = notify_digits([received])
    stored = format_2(received_at, normalised)
    index = None
    if reference := normalised.postback.client_reference:
        key = record.reference_key("default", reference)
        index = (key, (TTL, _REFERENCES, _FORMAT, received_at, normalised.key.id))
    return Update(
        received,
        (normalised.key.redis, (TTL, record.MAX_POSTBACKS_KEPT, notify, *stored)),
        index,
    )


def due_event(update: Update, reply: tuple[bytes, list[bytes]]) -> Event | None:
    """The event that is due after the merge, None if there is none.

    Args:
        reply: the result of `merge.lua`.
    """
    verdicts, flat = reply
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    after = read_record(update.received.normalised.key, fields)
    due = due_events(Merged([update.received], decode_verdicts(verdicts), after))
    return due[0].event if due else None
