"""Makes a batch durable: RabbitMQ's confirm, else the spool's fsync, else a refusal.

This is the only place that makes a postback durable, so it is the only reason for a 200.
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
    """Commits batches to RabbitMQ or to the spool.

    Args:
        spool: None when there is none; then a batch without a confirm is refused.
    """

    def __init__(self, publisher: Publisher, breaker: Breaker, spool: Spool | None) -> None:
        self._publisher = publisher
        self._breaker = breaker
        self._spool = spool

    @property
    def largest(self) -> float:
        """Bytes of the largest batch that RabbitMQ accepts, as far as is known."""
        return self._publisher.largest

    async def commit(self, arrivals: Sequence[Arrival]) -> str:
        """Make a batch durable: in a quorum queue, or on disk.

        Returns:
            The batch id.

        Raises:
            SpoolUnavailableError: neither accepted it, or it is unknown whether one did.
            BodyTooLargeError: RabbitMQ accepts no postback of this size, and there is no spool.
        """
        encoded = envelope.encode(arrivals)
        batch_id = envelope.batch_id(encoded)
        metrics.BATCH_SIZE.observe(len(arrivals))
        if self._breaker.closed and await self.try_publish(encoded, batch_id, len(arrivals)):
            _log_batch(batch_id, len(arrivals), "confirmed")
        elif self._spool is not None:
            await self._spool.add(encoded, len(arrivals))
            metrics.SPOOLED.inc(len(arrivals))
            _log_batch(batch_id, len(arrivals), "spooled")
        else:
            raise self._refusal(encoded, len(arrivals))
        return batch_id

    async def try_publish(self, encoded: bytes, batch_id: str, postbacks: int = 0) -> bool:
        """Publish a batch and report the result to the breaker.

        When the outcome is unknown, the batch counts as not confirmed. Published again it is a
        duplicate, which the state ignores; not published again it may be lost.

        Args:
            encoded: see `envelope.encode`.
            batch_id: see `envelope.batch_id`.
            postbacks: how many the batch holds, for the metrics.

        Returns:
            Whether RabbitMQ confirmed it.
        """
        started = time.perf_counter()
        try:
            await self._publisher.publish(encoded, batch_id)
        except (PublishRejectedError, PublishOutcomeUnknownError) as error:
            self._publish_failed(error)
            return False
        except UnpublishableError as error:
            self._batch_too_large(batch_id, error)
            return False
        metrics.CONFIRM_TIME.observe(time.perf_counter() - started)
        metrics.PUBLISHES["confirmed",].inc()
        metrics.PUBLISHED.inc(postbacks)
        if not self._breaker.closed:
            log.info("RabbitMQ accepts postbacks again")
        self._breaker.succeeded()
        return True

    def _publish_failed(self, error: PublishRejectedError | PublishOutcomeUnknownError) -> None:
        metrics.PUBLISHES[_RESULTS[type(error)],].inc()
        if self._breaker.closed:
            log.warning("RabbitMQ does not accept postbacks: %s", error)
        self._breaker.failed(str(error))

    def _batch_too_large(self, batch_id: str, error: UnpublishableError) -> None:
        """Leave the breaker closed, because RabbitMQ works.

        The drain splits this batch, and new batches are smaller from now on, see `largest`.
        """
        metrics.PUBLISHES["too_large",].inc()
        _limited_log.warning("too large", "batch %s was not published: %s", batch_id, error)

    def _refusal(self, encoded: bytes, postbacks: int) -> BodyTooLargeError | SpoolUnavailableError:
        """The error for a batch that has neither a confirm nor a spool."""
        if postbacks == 1 and len(encoded) > self.largest:
            return BodyTooLargeError(f"RabbitMQ accepts at most {self.largest:.0f} bytes")
        return SpoolUnavailableError(f"{self._breaker.reason}, and there is no spool")


def _log_batch(batch_id: str, postbacks: int, result: str) -> None:
    """At DEBUG, log one line for each batch that is durable."""
    if log.isEnabledFor(logging.DEBUG):
        known = {"batch": batch_id, "postbacks": postbacks, "result": result}
        log.debug("batch %(batch)s: %(postbacks)d postbacks %(result)s", known, extra=known)


_RESULTS: Final = {PublishRejectedError: "not_taken", PublishOutcomeUnknownError: "unknown"}
