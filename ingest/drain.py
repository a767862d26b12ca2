"""Brings the spool back to RabbitMQ, oldest first, while new postbacks go their own way.

While the breaker is open its first batch is the probe.
"""

import asyncio
import logging
from typing import Final

from ingest import metrics
from ingest.breaker import Breaker
from ingest.durable import Durable
from ingest.spool import Spool, Spooled
from shared import envelope
from shared.errors import SpoolUnavailableError

IDLE: Final = 0.25
"""Seconds between two looks at an empty spool or an open breaker."""

AT_ONCE: Final = 16
"""Batches published together once the breaker is closed."""

AFTER_FAILURE: Final = 1.0
"""Seconds to leave a failing disk alone."""

log: Final = logging.getLogger(__name__)


async def drain(spool: Spool, durable: Durable, breaker: Breaker) -> None:
    """Publish and remove the spool's batches whenever RabbitMQ takes them, until cancelled.

    A batch is removed only after its confirm: killed in between, it is published again.
    """
    told = ""
    while True:
        try:
            if not (breaker.closed or breaker.may_probe()):
                await asyncio.sleep(IDLE)
            elif batches := await _mine(spool, AT_ONCE if breaker.closed else 1):
                await _remove(spool, await _published(durable, batches))
                if not breaker.closed:
                    await spool.measure()  # others that share the file may be filling it
            else:
                await _nothing_to_drain(spool, breaker)
        except SpoolUnavailableError as error:
            if str(error) != told:
                log.warning("%s", error)
            told = str(error)
            await asyncio.sleep(AFTER_FAILURE)


async def _mine(spool: Spool, limit: int) -> list[Spooled]:
    """What this process is to drain: nothing when another one drains the same file."""
    return await spool.oldest(limit) if spool.lock_for_draining() else []


async def _published(durable: Durable, batches: list[Spooled]) -> list[Spooled]:
    async with asyncio.TaskGroup() as publishes:
        taken = [
            publishes.create_task(
                durable.published(each.batch, envelope.batch_id(each.batch), each.postbacks)
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
            log.warning("%s", error)
            await asyncio.sleep(AFTER_FAILURE)
        else:
            metrics.DRAINED.inc(sum(each.postbacks for each in confirmed))
            return


async def _nothing_to_drain(spool: Spool, breaker: Breaker) -> None:
    """An open breaker has nothing here to probe with: let the next batch that comes in try."""
    breaker.half_open()
    await spool.measure()
    await asyncio.sleep(IDLE)
