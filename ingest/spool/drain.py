"""Drains the spool to RabbitMQ, oldest batch first, while new postbacks go to RabbitMQ directly.

While the breaker is open, the first batch of the spool is the probe. When that batch cannot be
read, see `ingest.probe`. A batch that is larger than RabbitMQ accepts is not published: it is
split, and a postback that is too large by itself is set aside.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

import msgspec

from ingest import metrics
from ingest.breaker import Breaker
from ingest.commit import Committer
from ingest.publisher import PUBLISH_LIMIT
from ingest.spool.spool import Spool
from ingest.spool.spool_file import Spooled
from shared.errors import SpoolUnavailableError
from shared.postback import envelope
from shared.rate_limited_log import RateLimitedLog

IDLE_INTERVAL: Final = 0.25
"""Seconds between two looks at an empty spool or an open breaker."""

MAX_PARALLEL_PUBLISHES: Final = 128
"""Batches published together, at most; fewer when they are large, see `spool_file.MAX_READ`."""

QUICK_CONFIRM: Final = PUBLISH_LIMIT / 4
"""Seconds; when RabbitMQ confirms within them, twice as many batches are published together."""

CHECK_INTERVAL: Final = 0.5
"""Seconds between two checks of the spool."""

RETRY_PAUSE: Final = 1.0
"""Seconds between two tries on a disk that fails."""

log: Final = logging.getLogger(__name__)
_limited_log: Final = RateLimitedLog(log)


async def drain(spool: Spool, committer: Committer, breaker: Breaker) -> None:
    """Publish and remove the spool's batches while RabbitMQ accepts them, until cancelled.

    A batch is removed only after its confirm: a process that is killed in between publishes it
    again.
    """
    last_error = ""
    parallel = 1
    while True:
        try:
            if not breaker.closed:
                parallel = 1  # the probe
            if not (breaker.closed or breaker.probe_due):
                await asyncio.sleep(IDLE_INTERVAL)
            elif batches := await _take(spool, committer, parallel):
                if not (breaker.closed or breaker.may_probe()):
                    continue  # it opened during the read, or another publish was the probe
                began = time.monotonic()
                confirmed = await _publish(committer, batches)
                parallel = _next_parallel(parallel, time.monotonic() - began)
                await _remove(spool, confirmed)
                if not breaker.closed:
                    await spool.measure()  # other processes may add to the file
            else:
                await _nothing_to_drain(spool, breaker)
        except SpoolUnavailableError as error:
            if str(error) != last_error:
                log.warning("%s", error)
            last_error = str(error)
            await asyncio.sleep(RETRY_PAUSE)


async def check_spool(spool: Spool, rabbitmq_down: Callable[[], bool]) -> None:
    """Keep `spool.problem` up to date while RabbitMQ is down or there is one, until cancelled."""
    while True:
        if rabbitmq_down() or spool.problem is not None:
            await spool.check()
        await asyncio.sleep(CHECK_INTERVAL)


def _next_parallel(parallel: int, seconds: float) -> int:
    """How many batches to publish together next, so that a slow RabbitMQ confirms them in time.

    A batch without a confirm within `PUBLISH_LIMIT` must be published again, and opens the breaker.

    Args:
        parallel: how many there were the last time.
        seconds: how long they took.
    """
    if seconds < QUICK_CONFIRM:
        return min(MAX_PARALLEL_PUBLISHES, parallel * 2)
    return parallel if seconds < 2 * QUICK_CONFIRM else max(1, parallel // 2)


async def _take(spool: Spool, committer: Committer, limit: int) -> list[Spooled]:
    """The batches to publish next; none when another process drains the same file."""
    if not spool.drained_here:
        if not spool.lock_for_draining():
            return []
        await spool.restore_set_aside()
    while True:
        batches = await spool.oldest(limit)
        too_large = [each for each in batches if len(each.encoded) > committer.largest]
        if not too_large:
            return batches
        for each in too_large:
            await _split(spool, each, committer.largest)


async def _split(spool: Spool, spooled: Spooled, largest: float) -> None:
    try:
        pieces = envelope.split(spooled.encoded, largest)
    except msgspec.DecodeError:
        pieces = [(spooled.encoded, spooled.postbacks)]
    fitting = [piece for piece in pieces if len(piece[0]) <= largest]
    set_aside = [piece for piece in pieces if len(piece[0]) > largest]
    await spool.replace(spooled, fitting, set_aside)
    if set_aside:
        _limited_log.warning(
            "set aside",
            "%d postbacks are larger than RabbitMQ accepts (%.0f bytes) and are set aside in the"
            " spool; raise its max_message_size and restart mms-ingest to send them",
            sum(postbacks for _, postbacks in set_aside),
            largest,
        )


async def _publish(committer: Committer, batches: list[Spooled]) -> list[Spooled]:
    """Publish batches together; those that RabbitMQ confirmed."""
    async with asyncio.TaskGroup() as tasks:
        publishes = [
            tasks.create_task(
                committer.try_publish(each.encoded, envelope.batch_id(each.encoded), each.postbacks)
            )
            for each in batches
        ]
    return [each for each, task in zip(batches, publishes, strict=True) if task.result()]


async def _remove(spool: Spool, confirmed: list[Spooled]) -> None:
    """Remove confirmed batches. Retried on a failing disk, so that none is published again."""
    while confirmed:
        try:
            await spool.remove([each.id for each in confirmed])
        except SpoolUnavailableError as error:
            _limited_log.warning("remove", "%s", error)
            await asyncio.sleep(RETRY_PAUSE)
        else:
            metrics.DRAINED.inc(sum(each.postbacks for each in confirmed))
            return


async def _nothing_to_drain(spool: Spool, breaker: Breaker) -> None:
    """The spool has no batch for a probe, so the next new batch is the probe."""
    breaker.half_open()
    await spool.measure()
    await asyncio.sleep(IDLE_INTERVAL)
