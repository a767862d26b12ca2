"""Brings the spool back to RabbitMQ, oldest first, while new postbacks go their own way.

While the breaker is open its first batch is the probe.
"""

import asyncio
from typing import Final

from ingest.breaker import Breaker
from ingest.durable import Durable
from ingest.spool import Spool

IDLE: Final = 0.25
"""Seconds between two looks at an empty spool or an open breaker."""

AT_ONCE: Final = 16
"""Batches published together once the breaker is closed."""


async def drain(spool: Spool, durable: Durable, breaker: Breaker) -> None:
    """Publish and remove the spool's batches whenever RabbitMQ takes them, until cancelled.

    A batch is removed only after its confirm: killed in between, it is published again.
    """
    while True:
        if not spool.lock_for_draining() or not (breaker.closed or breaker.may_probe()):
            await asyncio.sleep(IDLE)
            continue
        batches = await spool.oldest(AT_ONCE if breaker.closed else 1)
        if not batches:
            await _nothing_to_drain(spool, breaker)
            continue
        async with asyncio.TaskGroup() as publishes:
            taken = [publishes.create_task(durable.published(each.batch)) for each in batches]
        confirmed = [each.id for each, task in zip(batches, taken, strict=True) if task.result()]
        if confirmed:
            await spool.remove(confirmed)


async def _nothing_to_drain(spool: Spool, breaker: Breaker) -> None:
    """An open breaker with an empty spool has nothing to probe with: let the next batch try."""
    if not breaker.closed:
        breaker.succeeded()
    await spool.measure()
    await asyncio.sleep(IDLE)
