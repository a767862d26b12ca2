"""Lets a postback probe RabbitMQ when the spool cannot provide the probe.

The drain probes with the first batch of the spool, see `drain`. Without a readable spool the next
postback is the probe. Then the ingress must be ready for it: a load balancer that asks `/readyz`
would send none otherwise, and the breaker would never close.
"""

import asyncio
from typing import Final

from ingest.breaker import Breaker
from ingest.publisher import Publisher
from ingest.spool.spool import Spool

CHECK_INTERVAL: Final = 0.25
"""Seconds between two checks whether a probe is due."""


async def probe(breaker: Breaker, publisher: Publisher, spool: Spool | None) -> None:
    """Half open the breaker once in each of its pauses while RabbitMQ answers, until cancelled."""
    while True:
        readable = spool is not None and spool.readable
        if not readable and publisher.problem is None and breaker.may_probe():
            breaker.half_open()
        await asyncio.sleep(CHECK_INTERVAL)
