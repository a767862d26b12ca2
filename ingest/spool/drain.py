"""Brings the spool back to RabbitMQ, oldest first, while new postbacks go their own way.

While the breaker is open its first batch is the probe; if it cannot be read, see `probe`. A batch
that is larger than RabbitMQ takes is no probe and is not published: it is split, and a postback
that is too large by itself is set aside.
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
from ingest.spool.spool import Spool, Spooled
from shared.errors import SpoolUnavailableError
from shared.postback import envelope
from shared.rate_limited_log import RateLimitedLog

IDLE_INTERVAL: Final = 0.25
"""Seconds between two looks at an empty spool or an open breaker."""

MAX_PARALLEL_PUBLISHES: Final = 128
"""Batches published together, at most; large ones are fewer, see `spool.READ_BYTES`."""

QUICK_CONFIRM: Final = PUBLISH_LIMIT / 4
"""Seconds; twice as much is published together if RabbitMQ has confirmed within that time."""

CHECK_EVERY: Final = 0.5
"""Seconds between two checks of the spool."""

AFTER_FAILURE: Final = 1.0
"""Seconds to leave a failing disk alone."""

log: Final = logging.getLogger(__name__)
_limited_log: Final = RateLimitedLog(log)


async def drain(spool: Spool, committer: Committer, breaker: Breaker) -> None:
    """Publish and remove the spool's batches whenever RabbitMQ takes them, until cancelled.

    A batch is removed only after its confirm: killed in between, it is published again.
    """
    told = ""
    parallel = 1
    while True:
        try:
            if not breaker.closed:
                parallel = 1  # the probe
            if not (breaker.closed or breaker.probe_due):
                await asyncio.sleep(IDLE_INTERVAL)
            elif batches := await _mine(spool, committer, parallel):
                if not (breaker.closed or breaker.may_probe()):
                    continue  # meanwhile it opened, or another one probed
                began = time.monotonic()
                confirmed = await _published(committer, batches)
                parallel = _next_parallel(parallel, time.monotonic() - began)
                await _remove(spool, confirmed)
                if not breaker.closed:
                    await spool.measure()  # others that share the file may be filling it
            else:
                await _nothing_to_drain(spool, breaker)
        except SpoolUnavailableError as error:
            if str(error) != told:
                log.warning("%s", error)
            told = str(error)
            await asyncio.sleep(AFTER_FAILURE)


async def check(spool: Spool, rabbitmq_away: Callable[[], bool]) -> None:
    """Keep `spool.problem` up to date while it matters or is not None, until cancelled."""
    while True:
        if rabbitmq_away() or spool.problem is not None:
            await spool.check()
        await asyncio.sleep(CHECK_EVERY)


def _next_parallel(parallel: int, seconds: float) -> int:
    """How many batches to publish together, so that a slow RabbitMQ confirms them in time.

    What is not confirmed within `PUBLISH_LIMIT` has to be published again, and opens the breaker.

    Args:
        at_once: how many there were the last time.
        seconds: how long they took.
    """
    if seconds < QUICK_CONFIRM:
        return min(MAX_PARALLEL_PUBLISHES, parallel * 2)
    return parallel if seconds < 2 * QUICK_CONFIRM else max(1, parallel // 2)


async def _mine(spool: Spool, committer: Committer, limit: int) -> list[Spooled]:
    """What this process is to drain: nothing when another one drains the same file."""
    if not spool.drained_here:
        if not spool.lock_for_draining():
            return []
        await spool.take_back()
    while True:
        batches = await spool.oldest(limit)
        too_large = [each for each in batches if len(each.batch) > committer.largest]
        if not too_large:
            return batches
        for each in too_large:
            await _make_smaller(spool, each, committer.largest)


async def _make_smaller(spool: Spool, spooled: Spooled, largest: float) -> None:
    try:
        pieces = envelope.split(spooled.batch, largest)
    except msgspec.DecodeError:
        pieces = [(spooled.batch, spooled.postbacks)]
    fit = [piece for piece in pieces if len(piece[0]) <= largest]
    aside = [piece for piece in pieces if len(piece[0]) > largest]
    await spool.replace(spooled, fit, aside)
    if aside:
        _limited_log.warning(
            "set aside",
            "%d postbacks are larger than RabbitMQ takes (%.0f bytes) and are set aside in the"
            " spool; raise its max_message_size and restart mms-ingest to send them",
            sum(postbacks for _, postbacks in aside),
            largest,
        )


async def _published(committer: Committer, batches: list[Spooled]) -> list[Spooled]:
    async with asyncio.TaskGroup() as publishes:
        taken = [
            publishes.create_task(
                committer.published(each.batch, envelope.batch_id(each.batch), each.postbacks)
            )
            for each in batches
        ]
    return [each for each, task in zip(batches, taken, strict=True) if task.result()]


async def _remove(spool: Spool, confirmed: list[Spooled]) -> None:
    """Remove what is confirmed; on a full disk again and again, rather than publish it again."""
    while confirmed:
        try:
            await spool.remove([each.id for each in confirmed])
        except SpoolUnavailableError as error:
            _limited_log.warning("remove", "%s", error)
            await asyncio.sleep(AFTER_FAILURE)
        else:
            metrics.DRAINED.inc(sum(each.postbacks for each in confirmed))
            return


async def _nothing_to_drain(spool: Spool, breaker: Breaker) -> None:
    """An open breaker has nothing here to probe with: let the next batch that comes in try."""
    breaker.half_open()
    await spool.measure()
    await asyncio.sleep(IDLE_INTERVAL)
