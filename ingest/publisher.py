"""One confirmed publish of one batch: taken, not taken, too large, or unknown.

Keeps one session to RabbitMQ open, for ever, and publishes on it while it is there. Without a
session a publish fails at once: what to do then is not decided here.
"""

import logging
import math
from typing import Final

from pamqp.commands import Basic

from shared.errors import BrokerUnavailableError, PublishRejectedError, TopologyConflictError
from shared.postback import envelope
from shared.rabbitmq import topology
from shared.rabbitmq.session import Session, backoff, hold, open_session
from shared.settings.settings import Settings

PUBLISH_LIMIT: Final = 2.0
"""Seconds to wait for RabbitMQ's confirm of a batch."""

log: Final = logging.getLogger(__name__)


class Publisher:
    """Publishes batches to `mms.postbacks` and knows whether RabbitMQ took them.

    Attributes:
        largest: bytes of the largest batch that RabbitMQ takes, as far as it has told.
        problem: why there is no session to publish on, or what is wrong with the topology.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session: Session | None = None
        self.largest: float = math.inf
        self.problem: str | None = "not connected to RabbitMQ yet"

    async def publish(self, batch: bytes, batch_id: str) -> None:
        """Publish an encoded batch; returns once a quorum queue has it.

        Args:
            batch_id: the message's id, see `envelope.batch_id`.

        Raises:
            PublishRejectedError: there is no session, or RabbitMQ refused the batch.
            UnpublishableError: the batch is larger than `largest`.
            PublishOutcomeUnknownError: no answer within `PUBLISH_LIMIT`, or the connection broke.
        """
        session = self._session
        if session is None or not session.open:
            raise PublishRejectedError(self.problem)
        properties = Basic.Properties(content_type=envelope.CONTENT_TYPE, message_id=batch_id)
        try:
            await session.publish(
                batch, exchange=topology.POSTBACKS, properties=properties, limit=PUBLISH_LIMIT
            )
        finally:
            self.largest = session.largest

    async def run(self) -> None:
        """Connect, and connect again whenever the connection is lost, until cancelled."""
        attempt = 0
        while True:
            try:
                session = await open_session(self._settings, name="mms-ingest")
            except (BrokerUnavailableError, TopologyConflictError) as error:
                self._report(str(error))
                await backoff(attempt)
                attempt += 1
                continue
            log.info("connected to RabbitMQ")
            attempt = 0
            self.problem = None
            self._session = session
            try:
                await hold(session, self._settings, self._report)
            finally:
                self._session = None
                await session.close()
            self._report("lost the connection to RabbitMQ")

    def _report(self, problem: str | None) -> None:
        if problem is not None and problem != self.problem:
            log.warning("%s", problem)
        self.problem = problem
