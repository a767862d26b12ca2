"""Probes of Redis and RabbitMQ, which show whether they work. They run with and without traffic.

A server that was killed closes its connections. A server that hangs does not; it only fails to
answer in time. So each server is asked twice a second and has a second to answer: what `/readyz`
says of it is at most two seconds old.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

from shared.cancellation import raise_lost_cancellation
from shared.errors import BrokerUnavailableError, StateUnavailableError
from shared.rabbitmq.errors import connection_errors
from shared.rabbitmq.reconnect import Report
from shared.rabbitmq.session import Session
from shared.rabbitmq.topology import STATE_QUEUE
from shared.settings.settings import Settings
from workers.store import Store
from workers.verdicts import Merged, Received, Unmergeable

PROBE_INTERVAL: Final = 0.5
"""Seconds between the answer to a probe and the next probe."""

ANSWER_LIMIT: Final = 1.0
"""Seconds after which a server that has not answered counts as away."""

PROBE_LIMIT: Final = 10.0
"""Seconds after which a probe of Redis is cancelled. Longer than `ANSWER_LIMIT`, because in a
cluster several nodes may have to be tried before one answers."""


class RedisProbe:
    """Probes whether Redis is available: it answers, accepts writes, and the last merge succeeded.

    A probe does not show every failure, for example a user who may not run scripts. So a merge
    that fails counts too, until a merge succeeds; see `WatchedStore`.
    """

    def __init__(self, settings: Settings) -> None:
        self._store = Store(settings, ANSWER_LIMIT)
        self._probe_problem: str | None = "Redis has not been asked yet"
        self._merge_problem: str | None = None
        self._answers = asyncio.Event()
        self._available = asyncio.Event()
        self._away = asyncio.Event()
        self._away.set()

    @property
    def problem(self) -> str | None:
        """Why Redis is not available; None when it is."""
        return self._probe_problem or self._merge_problem

    async def run(self) -> None:
        """Probe until cancelled.

        Raises:
            UnsupportedRedisError: the server is too old. Its version is checked at the start and
                whenever it was away.
        """
        async with contextlib.aclosing(self._store):
            while True:
                with _report_if_late(self._report, "Redis"):
                    problem = await self._probe()
                self._report(problem)
                raise_lost_cancellation()
                await asyncio.sleep(PROBE_INTERVAL)

    async def wait_until_answering(self) -> None:
        """Wait until Redis answers the probe."""
        await self._answers.wait()

    async def wait_until_available(self) -> None:
        """Wait until Redis answers the probe and the last merge succeeded."""
        await self._available.wait()

    async def wait_until_away(self) -> None:
        """Wait until Redis is not available."""
        await self._away.wait()

    def report_merge(self, problem: str | None) -> None:
        """Note that a merge succeeded (None), or why Redis refused it."""
        self._merge_problem = problem
        self._set_events()

    def _report(self, problem: str | None) -> None:
        self._probe_problem = problem
        self._set_events()

    def _set_events(self) -> None:
        _set(self._answers, to=self._probe_problem is None)
        _set(self._available, to=self.problem is None)
        _set(self._away, to=self.problem is not None)

    async def _probe(self) -> str | None:
        try:
            async with asyncio.timeout(PROBE_LIMIT):
                if self._probe_problem is not None:
                    await self._store.check_version()
                await self._store.check()
        except (StateUnavailableError, TimeoutError) as error:
            # The next probe begins with new connections, in a cluster also with new primaries.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_LIMIT):
                    await self._store.aclose()
            return str(error) or f"Redis has not answered for {PROBE_LIMIT:g} s"
        return None


class WatchedStore(Store):
    """A store that reports to a probe whether its merges succeed."""

    def __init__(self, settings: Settings, probe: RedisProbe) -> None:
        super().__init__(settings)
        self._probe = probe

    async def merge(self, window: Sequence[Received]) -> list[Merged | Unmergeable]:
        """See `Store.merge`."""
        try:
            merged = await super().merge(window)
        except StateUnavailableError as error:
            self._probe.report_merge(str(error))
            raise
        self._probe.report_merge(None)
        return merged


async def probe_rabbitmq(session: Session, report: Report) -> None:
    """Ask RabbitMQ for the input queue again and again, on a channel of its own.

    Raises:
        BrokerUnavailableError: the session is closed.
    """
    channel = None
    problem: str | None
    while True:
        with _report_if_late(report, "RabbitMQ"):
            try:
                with connection_errors(f"{STATE_QUEUE} cannot be found"):
                    if channel is None or channel.is_closed:
                        channel = await session.connection.channel(publisher_confirms=False)
                    await channel.declare_queue(STATE_QUEUE, passive=True)
            except BrokerUnavailableError as error:
                if not session.open:
                    raise
                problem = str(error)
            else:
                problem = None
        report(problem)
        await asyncio.sleep(PROBE_INTERVAL)


@contextlib.contextmanager
def _report_if_late(report: Report, server: str) -> Iterator[None]:
    """Report a server that takes longer than `ANSWER_LIMIT`, and keep waiting for it."""
    late = asyncio.get_running_loop().call_later(
        ANSWER_LIMIT, report, f"{server} has not answered for {ANSWER_LIMIT:g} s"
    )
    try:
        yield
    finally:
        late.cancel()


def _set(event: asyncio.Event, *, to: bool) -> None:
    if to:
        event.set()
    else:
        event.clear()
