"""Makes a batch durable: RabbitMQ's confirm, else the spool's fsync, else an honest refusal.

This is the one place where a postback becomes safe, and so the one reason for a 200.
"""

import logging
import time
from collections.abc import Sequence
from typing import Final

from ingest import metrics
from ingest.breaker import Breaker
from ingest.publisher import Publisher
from ingest.spool import Spool
from shared import envelope
from shared.envelope import Arrival
from shared.errors import FateUnknownError, NotTakenError, SpoolUnavailableError

log: Final = logging.getLogger(__name__)


class Durable:
    """The order of choice for each batch, and what is learnt from each try.

    Args:
        spool: None when there is none; then a batch that RabbitMQ does not take is refused.
    """

    def __init__(self, publisher: Publisher, breaker: Breaker, spool: Spool | None) -> None:
        self._publisher = publisher
        self._breaker = breaker
        self._spool = spool

    async def commit(self, arrivals: Sequence[Arrival]) -> str:
        """The batch's id, once the batch is in a quorum queue or on disk.

        Raises:
            SpoolUnavailableError: neither would take it, or it is unknown whether one did.
        """
        batch = envelope.encode(arrivals)
        batch_id = envelope.batch_id(batch)
        metrics.BATCH_SIZE.observe(len(arrivals))
        if self._may_publish() and await self.published(batch, batch_id, len(arrivals)):
            _log_batch(batch_id, len(arrivals), "confirmed")
            return batch_id
        if self._spool is None:
            raise SpoolUnavailableError(f"{self._breaker.reason}, and there is no spool")
        await self._spool.add(batch, len(arrivals))
        metrics.SPOOLED.inc(len(arrivals))
        _log_batch(batch_id, len(arrivals), "spooled")
        return batch_id

    async def published(self, batch: bytes, batch_id: str, postbacks: int = 0) -> bool:
        """Whether RabbitMQ confirmed the batch; the breaker learns from it.

        A batch whose fate is unknown counts as not confirmed: published again it is a duplicate,
        which the state forgets; not published again it may be lost.

        Args:
            batch_id: see `envelope.batch_id`.
            postbacks: how many the batch holds, to be counted.
        """
        started = time.perf_counter()
        try:
            await self._publisher.publish(batch, batch_id)
        except (NotTakenError, FateUnknownError) as error:
            metrics.PUBLISHES[_RESULTS[type(error)],].inc()
            if self._breaker.closed:
                log.warning("RabbitMQ does not take postbacks: %s", error)
            self._breaker.failed(str(error))
            return False
        metrics.CONFIRM_TIME.observe(time.perf_counter() - started)
        metrics.PUBLISHES["confirmed",].inc()
        metrics.PUBLISHED.inc(postbacks)
        if not self._breaker.closed:
            log.info("RabbitMQ takes postbacks again")
        self._breaker.succeeded()
        return True

    def _may_publish(self) -> bool:
        """With a spool, the drain probes; without one, a request has to."""
        return self._breaker.closed or (self._spool is None and self._breaker.may_probe())


def _log_batch(batch_id: str, postbacks: int, how: str) -> None:
    """The one line of a batch here."""
    if log.isEnabledFor(logging.DEBUG):
        known = {"batch": batch_id, "postbacks": postbacks, "result": how}
        log.debug("batch %(batch)s: %(postbacks)d postbacks %(result)s", known, extra=known)


_RESULTS: Final = {NotTakenError: "not_taken", FateUnknownError: "unknown"}
