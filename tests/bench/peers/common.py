"""The servers' addresses, the peers' queues, and the work for one postback."""

import os
import time
from pathlib import Path
from typing import Final, NamedTuple

from shared.postback import record
from shared.postback.event import Event, event_of
from shared.postback.normalise import decode
from shared.postback.postback import NormalisedPostback

AMQP_URL: Final = os.environ.get("MMS_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
REDIS_URL: Final = os.environ.get("MMS_REDIS_URL", "redis://127.0.0.1:6379/0")
HOST: Final = "127.0.0.1"

AIOHTTP_QUEUE: Final = "bench.aiohttp"
CELERY_QUEUE: Final = "bench.celery"
FASTSTREAM_QUEUE: Final = "bench.faststream"
QUEUES: Final = (AIOHTTP_QUEUE, CELERY_QUEUE, FASTSTREAM_QUEUE)
"""All are durable quorum queues."""

QUORUM: Final = {"x-queue-type": "quorum"}

TTL: Final = 7 * 86400
_REFERENCES: Final = 64
_LUA: Final = Path(__file__).parents[3] / "workers"
MERGE: Final = (_LUA / "merge.lua").read_bytes()
INDEX: Final = (_LUA / "index.lua").read_bytes()


class Update(NamedTuple):
    """The merge of one postback into Redis: the same two script calls as in our worker.

    Attributes:
        merge: key and arguments for `merge.lua`.
        reference: key and arguments for `index.lua`.
    """

    normalised: NormalisedPostback
    merge: tuple[str, tuple[str | bytes | int, ...]]
    reference: tuple[str, tuple[str | bytes | int, ...]] | None


def prepare(body: bytes) -> Update:
    """Decode one postback of the source `default`, and prepare the changes in Redis."""
    normalised = decode("default", body)
    received_at = time.time_ns() // 1000
    notify = "1" if normalised.rank.terminal else "0"
    name = record.entry_name(normalised)
    value = record.entry_value(received_at, normalised.postback)
    index = None
    if reference := normalised.postback.client_reference:
        key = record.reference_key("default", reference)
        index = (key, (TTL, _REFERENCES, received_at, normalised.key.id))
    return Update(
        normalised,
        (normalised.key.redis, (TTL, record.MAX_POSTBACKS_KEPT, notify, name, value)),
        index,
    )


def due_event(update: Update, reply: tuple[bytes, list[bytes]]) -> Event | None:
    """The event that is due after the merge, None if there is none.

    Args:
        reply: the result of `merge.lua`.
    """
    result, flat = reply
    if result != b"N" or not update.normalised.rank.terminal:
        return None
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    known = record.read_record(update.normalised.key, fields)
    return event_of(known, update.normalised.track) if known else None
