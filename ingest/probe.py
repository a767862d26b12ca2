"""Lets a postback probe RabbitMQ when the spool has nothing to probe with.

The drain probes with the first batch of the spool, see `drain`. Where there is no spool, or it
cannot be read, the next postback has to decide. Then the ingress must be ready for that postback:
a balancer that asks `/readyz` would send none, and the breaker would never close.
"""

import asyncio
from typing import Final

from ingest.breaker import Breaker
from ingest.publisher import Publisher
from ingest.spool.spool import Spool

LOOK_EVERY: Final = 0.25
"""Seconds between two looks whether a probe is due."""


async def probe(breaker: Breaker, publisher: Publisher, spool: Spool | None) -> None:
    """Half open the breaker once a pause while RabbitMQ answers, until cancelled."""
    while True:
        readable = spool is not None and spool.readable
        if not readable and publisher.problem is None and breaker.may_probe():
            breaker.half_open()
        await asyncio.sleep(LOOK_EVERY)
