"""RabbitMQ sessions for code that needs one as long as its process runs.

A `Session` does not reconnect. `Sessions` opens the next one, and `keep_topology` restores queues
and bindings that somebody deletes meanwhile.
"""

import contextlib
import itertools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from shared.backoff import backoff
from shared.errors import (
    BrokerUnavailableError,
    PostbacksError,
    PublishOutcomeUnknownError,
    TopologyConflictError,
)
from shared.rabbitmq import topology
from shared.rabbitmq.errors import connection_errors
from shared.rabbitmq.session import Session
from shared.settings.settings import Settings

CHECK_INTERVAL: Final = 5.0
"""Seconds between two declarations of the topology, which restore a deleted binding."""

SHORT_LIFE: Final = 1.0
"""Seconds; sessions that fail sooner, one after the other, are opened with growing delays."""

Report = Callable[[str | None], None]
"""Called with a problem, or with None when there is none."""

log: Final = logging.getLogger(__name__)


class Sessions:
    """Opens one session after the other.

        while True:
            async with sessions.next() as session:
                ...  # raise BrokerUnavailableError when the session is lost

    Args:
        open_next: opens a session.
        report: called with the reason when a session cannot be opened or fails, and with None when
            one is open.
        retry_on: errors of `open_next` after which it is called again.
        first: a session that is open already; `next` returns it before it opens one.
    """

    def __init__(
        self,
        open_next: Callable[[], Awaitable[Session]],
        report: Report,
        retry_on: tuple[type[PostbacksError], ...] = (BrokerUnavailableError,),
        first: Session | None = None,
    ) -> None:
        self._open_next = open_next
        self._report = report
        self._retry_on = retry_on
        self._first = first
        self._short_lives = 0

    @contextlib.asynccontextmanager
    async def next(self) -> AsyncIterator[Session]:
        """A new session, as soon as RabbitMQ answers; closed when the context ends.

        Reports and suppresses a `BrokerUnavailableError` or `PublishOutcomeUnknownError` that the
        context raises: the session is of no more use, and the next one is needed.
        """
        if self._short_lives:
            await backoff(self._short_lives - 1)
        session = await self._open()
        opened_at = time.monotonic()
        try:
            yield session
        except* (BrokerUnavailableError, PublishOutcomeUnknownError) as errors:
            short = time.monotonic() - opened_at < SHORT_LIFE
            self._short_lives = self._short_lives + 1 if short else 1
            self._report(str(errors.exceptions[0]))
        else:
            self._short_lives = 0
        finally:
            await session.close()

    async def _open(self) -> Session:
        if self._first is not None:
            session, self._first = self._first, None
            return session
        for attempt in itertools.count():
            try:
                session = await self._open_next()
            except self._retry_on as error:
                self._report(str(error))
                await backoff(attempt)
            else:
                break
        log.info("connected to RabbitMQ")
        self._report(None)
        return session


async def keep_topology(
    session: Session,
    settings: Settings,
    report: Report,
    usable: Callable[[], bool] = lambda: True,
) -> None:
    """Declare the topology every `CHECK_INTERVAL` as long as the session is open and `usable`.

    Args:
        report: called after each declaration with a conflict, or with None.
        usable: asked before each declaration.
    """
    while usable() and not await session.lost(within=CHECK_INTERVAL):
        try:
            with connection_errors():
                await topology.declare(session.connection, settings)
        except TopologyConflictError as error:
            report(str(error))
        except BrokerUnavailableError:
            return
        else:
            report(None)
