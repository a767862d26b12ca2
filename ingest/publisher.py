"""One confirmed publish of one batch: taken, not taken, or unknown.

Keeps one session to RabbitMQ open, for ever, and publishes on it while it is there. Without a
session a publish fails at once: what to do then is not decided here.
"""

import asyncio
import contextlib
import logging
from typing import Final

import aiormq
from pamqp.commands import Basic

from shared import envelope, topology
from shared.broker import Session, backoff, open_session
from shared.errors import BrokerUnavailableError, NotTakenError, TopologyConflictError
from shared.settings import Settings

PUBLISH_LIMIT: Final = 2.0
"""Seconds to wait for RabbitMQ's confirm of a batch."""

CHECK_EVERY: Final = 5.0
"""Seconds between two declarations of the topology: a binding that is gone comes back."""

log: Final = logging.getLogger(__name__)


class Publisher:
    """Publishes batches to `mms.postbacks` and knows whether RabbitMQ took them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session: Session | None = None
        self.problem: str | None = "not connected to RabbitMQ yet"

    async def publish(self, batch: bytes) -> None:
        """Publish an encoded batch; returns once a quorum queue has it.

        Raises:
            NotTakenError: there is no session, or RabbitMQ refused the batch.
            FateUnknownError: no answer within `PUBLISH_LIMIT`, or the connection broke.
        """
        session = self._session
        if session is None or not session.open:
            raise NotTakenError(self.problem)
        await session.publish(
            batch,
            exchange=topology.POSTBACKS,
            properties=Basic.Properties(content_type=envelope.CONTENT_TYPE),
            limit=PUBLISH_LIMIT,
        )

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
                await self._watch(session)
            finally:
                self._session = None
                await session.close()
            self._report("lost the connection to RabbitMQ")

    def _report(self, problem: str) -> None:
        if problem != self.problem:
            log.warning("%s", problem)
        self.problem = problem

    async def _watch(self, session: Session) -> None:
        """Return when the session is lost; meanwhile see that the topology stays whole."""
        while session.open:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_EVERY):
                    await session.closed()
                    return
            try:
                await topology.declare(session.connection, self._settings)
            except TopologyConflictError as error:
                self._report(str(error))
            except (TimeoutError, OSError, RuntimeError, aiormq.exceptions.AMQPError) as error:
                log.warning("RabbitMQ does not answer: %s", error or type(error).__name__)
                return
            else:
                self.problem = None
