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
from ingest.spool.spool import Spool
from shared.errors import (
    BodyTooLargeError,
    PublishOutcomeUnknownError,
    PublishRejectedError,
    SpoolUnavailableError,
    UnpublishableError,
)
from shared.postback import envelope
from shared.postback.envelope import Arrival
from shared.rate_limited_log import RateLimitedLog

log: Final = logging.getLogger(__name__)
_limited_log: Final = RateLimitedLog(log)


class Committer:
    """The order of choice for each batch, and what is learnt from each try.

    Args:
        spool: None when there is none; then a batch that RabbitMQ does not take is refused.
    """

    def __init__(self, publisher: Publisher, breaker: Breaker, spool: Spool | None) -> None:
        self._publisher = publisher
        self._breaker = breaker
        self._spool = spool

    @property
    def largest(self) -> float:
        """Bytes of the largest batch that RabbitMQ takes, as far as it has told."""
        return self._publisher.largest

    async def commit(self, arrivals: Sequence[Arrival]) -> str:
        """The batch's id, once the batch is in a quorum queue or on disk.

        Raises:
            SpoolUnavailableError: neither would take it, or it is unknown whether one did.
            BodyTooLargeError: RabbitMQ never takes a postback of this size, and there is no spool.
        """
        batch = envelope.encode(arrivals)
        batch_id = envelope.batch_id(batch)
        metrics.BATCH_SIZE.observe(len(arrivals))
        if self._breaker.closed and await self.published(batch, batch_id, len(arrivals)):
            _log_batch(batch_id, len(arrivals), "confirmed")
            return batch_id
        if self._spool is None:
            if len(arrivals) == 1 and len(batch) > self.largest:
                raise BodyTooLargeError(f"RabbitMQ takes {self.largest:.0f} bytes at most")
            raise SpoolUnavailableError(f"{self._breaker.reason}, and there is no spool")
        await self._spool.add(batch, len(arrivals))
        metrics.SPOOLED.inc(len(arrivals))
        _log_batch(batch_id, len(arrivals), "spooled")
        return batch_id

    async def published(self, batch: bytes, batch_id: str, postbacks: int = 0) -> bool:
        """Whether RabbitMQ confirmed the batch; the breaker learns from it.

        One that is too large for RabbitMQ is not confirmed either, but is not the breaker's affair:
        the drain splits it, and fresh batches are smaller from then on, see `largest`.

        A batch whose fate is unknown counts as not confirmed: published again it is a duplicate,
        which the state forgets; not published again it may be lost.

        Args:
            batch_id: see `envelope.batch_id`.
            postbacks: how many the batch holds, to be counted.
        """
        started = time.perf_counter()
        try:
            await self._publisher.publish(batch, batch_id)
        except (PublishRejectedError, PublishOutcomeUnknownError) as error:
            metrics.PUBLISHES[_RESULTS[type(error)],].inc()
            if self._breaker.closed:
                log.warning("RabbitMQ does not take postbacks: %s", error)
            self._breaker.failed(str(error))
            return False
        except UnpublishableError as error:  # says nothing about how RabbitMQ is
            metrics.PUBLISHES["too_large",].inc()
            _limited_log.warning("too large", "batch %s goes to the spool: %s", batch_id, error)
            return False
        metrics.CONFIRM_TIME.observe(time.perf_counter() - started)
        metrics.PUBLISHES["confirmed",].inc()
        metrics.PUBLISHED.inc(postbacks)
        if not self._breaker.closed:
            log.info("RabbitMQ takes postbacks again")
        self._breaker.succeeded()
        return True


def _log_batch(batch_id: str, postbacks: int, how: str) -> None:
    """The one line of a batch here."""
    if log.isEnabledFor(logging.DEBUG):
        known = {"batch": batch_id, "postbacks": postbacks, "result": how}
        log.debug("batch %(batch)s: %(postbacks)d postbacks %(result)s", known, extra=known)


_RESULTS: Final = {PublishRejectedError: "not_taken", PublishOutcomeUnknownError: "unknown"}
