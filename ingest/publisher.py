"""Publish a batch and wait for the result: confirmed, rejected, too large, or unknown.

Keeps one session to RabbitMQ open and publishes on it while it is open. Without a session a publish
fails at once; the caller decides what to do then.
"""

import logging
import math
from typing import Final

from pamqp.commands import Basic

from shared.errors import BrokerUnavailableError, PublishRejectedError, TopologyConflictError
from shared.postback import envelope
from shared.rabbitmq import topology
from shared.rabbitmq.reconnect import Sessions, keep_topology
from shared.rabbitmq.session import Session, open_session
from shared.settings.settings import Settings

PUBLISH_LIMIT: Final = 2.0
"""Seconds to wait for RabbitMQ's confirm of a batch."""

log: Final = logging.getLogger(__name__)


class Publisher:
    """Publishes batches to `mms.postbacks` and returns once RabbitMQ has confirmed them.

    Attributes:
        largest: bytes of the largest batch that RabbitMQ accepts; infinite as long as it is
            not known.
        problem: why there is no session, or what is wrong with the topology; None if nothing.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session: Session | None = None
        self.largest: float = math.inf
        self.problem: str | None = "not connected to RabbitMQ yet"

    async def publish(self, encoded: bytes, batch_id: str) -> None:
        """Publish an encoded batch; return once a quorum queue has it.

        Args:
            batch_id: the message's id, see `envelope.batch_id`.

        Raises:
            PublishRejectedError: there is no session, or RabbitMQ rejected the batch.
            UnpublishableError: the batch is larger than `largest`.
            PublishOutcomeUnknownError: no confirm within `PUBLISH_LIMIT`, or the connection was
                lost.
        """
        session = self._session
        if session is None or not session.open:
            raise PublishRejectedError(self.problem)
        properties = Basic.Properties(content_type=envelope.CONTENT_TYPE, message_id=batch_id)
        try:
            await session.publish(
                encoded, exchange=topology.POSTBACKS, properties=properties, limit=PUBLISH_LIMIT
            )
        finally:
            self.largest = session.largest

    async def run(self) -> None:
        """Keep a session open until cancelled. A topology conflict is reported and retried."""
        sessions = Sessions(
            self._open_session,
            self._report,
            retry_on=(BrokerUnavailableError, TopologyConflictError),
        )
        while True:
            async with sessions.next() as session:
                self._session = session
                try:
                    await keep_topology(session, self._settings, self._report)
                finally:
                    self._session = None
                raise BrokerUnavailableError("lost the connection to RabbitMQ")

    async def _open_session(self) -> Session:
        return await open_session(self._settings, name="mms-ingest")

    def _report(self, problem: str | None) -> None:
        if problem is not None and problem != self.problem:
            log.warning("%s", problem)
        self.problem = problem
