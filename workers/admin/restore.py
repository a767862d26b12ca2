"""Archived batches into Redis, window by window, and what that changed."""

import asyncio
from typing import Final

import msgspec

from shared import envelope
from shared.broker import Session, backoff, open_session
from shared.envelope import Arrival
from shared.errors import (
    BrokerUnavailableError,
    FateUnknownError,
    OtherOriginError,
    StateUnavailableError,
    UndecodableError,
)
from shared.event import Event
from shared.passthrough import PassthroughEvent, passthrough_of
from shared.postback import decode
from shared.settings import Settings
from workers.due import due_events
from workers.emitter import Untold, emit
from workers.store import Merged, Received, Store, Unmergeable

WINDOW: Final = 1500
"""Postbacks that are merged together."""

PATIENCE: Final = 10.0
"""Seconds to wait for Redis before giving up; what is merged stays merged."""

EMIT_PATIENCE: Final = 60.0
"""Seconds to wait for Redis or RabbitMQ with events unpublished: a second run would not know of
them."""

EXACT: Final = 1_000_000
"""Up to how many records are told apart; remembering more would take too much memory."""


class Summary(msgspec.Struct):
    """What a rebuild did.

    Attributes:
        undecodable: postbacks that are dead letters, and messages that are no batch.
        passthrough: postbacks of other origins, which are events and no part of the state.
        refused: postbacks that Redis will not take however long we wait.
        expired: events not published because what decides them came too long ago.
        records: records that the postbacks belong to; counted no further than `EXACT`.
        finished: whether it came to the archive's end.
    """

    batches: int = 0
    postbacks: int = 0
    new: int = 0
    duplicates: int = 0
    undecodable: int = 0
    passthrough: int = 0
    refused: int = 0
    records: int = 0
    events: int = 0
    expired: int = 0
    seconds: float = 0.0
    postbacks_per_second: int = 0
    dry_run: bool = False
    finished: bool = False


class Restorer:
    """Decodes and merges batches, counting; in a dry run it leaves Redis alone.

    Args:
        teller: publishes the events that are due; None: they are not published.
        earliest: microseconds since the Unix epoch; no event of what came before is published.
    """

    def __init__(
        self, store: Store, summary: Summary, teller: "Teller | None", earliest: int = 0
    ) -> None:
        self._earliest = earliest
        self._store = store
        self._summary = summary
        self._teller = teller
        self._window: list[Received] = []
        self._passed: list[PassthroughEvent] = []
        self._seen: set[int] = set()

    async def take(self, body: bytes) -> None:
        """Add one archived batch; merges when a window is full.

        Raises:
            StateUnavailableError: Redis stayed away longer than `PATIENCE`, with events to publish
                longer than `EMIT_PATIENCE`.
            BrokerUnavailableError, FateUnknownError: events could not be told within
                `EMIT_PATIENCE`.
        """
        self._summary.batches += 1
        try:
            batch = envelope.decode(body)
        except msgspec.DecodeError:
            self._summary.undecodable += 1
            return
        for arrival in batch:
            self._summary.postbacks += 1
            try:
                filing = decode(arrival.source, arrival.body)
            except OtherOriginError as other:
                self._pass_on(arrival, other)
                continue
            except UndecodableError:
                self._summary.undecodable += 1
                continue
            self._window.append(Received(arrival, filing, redelivered=False))
            if len(self._seen) < EXACT:
                self._seen.add(hash(filing.key))
        if len(self._window) + len(self._passed) >= WINDOW:
            await self.flush()

    def _pass_on(self, arrival: Arrival, other: OtherOriginError) -> None:
        """No record says whether its event was published, so it is published again."""
        try:
            event = passthrough_of(arrival, other.fields)
        except UndecodableError:
            self._summary.undecodable += 1
            return
        self._summary.passthrough += 1
        if self._teller is not None and arrival.received_at >= self._earliest:
            self._passed.append(event)

    async def flush(self) -> None:
        """Merge what is waiting.

        Raises:
            PostbacksError: as `take`.
        """
        window, self._window = self._window, []
        passed, self._passed = self._passed, []
        self._summary.records = len(self._seen)
        if self._summary.dry_run:
            return
        events: list[Event] = []
        for result in await self._merge(window) if window else ():
            if isinstance(result, Unmergeable):
                self._summary.refused += len(result.received)
                continue
            new = result.results.lower().count("n")
            self._summary.new += new
            self._summary.duplicates += len(result.received) - new
            for event, received in due_events(result, replayed=True):
                if received.arrival.received_at >= self._earliest:
                    events.append(event)
                elif self._teller is not None:
                    self._summary.expired += 1
        if self._teller is not None and (events or passed):
            await self._teller.tell(events, passed)
            self._summary.events += len(events) + len(passed)

    async def _merge(self, window: list[Received]) -> list[Merged | Unmergeable]:
        patience = PATIENCE if self._teller is None else EMIT_PATIENCE
        deadline = asyncio.get_running_loop().time() + patience
        attempt = 0
        while True:
            try:
                return await self._store.merge(window)
            except StateUnavailableError:
                if asyncio.get_running_loop().time() >= deadline:
                    raise
                # Part of it may have been done: what decides is then told of though it is known.
                window = [each._replace(redelivered=True) for each in window]
                await backoff(attempt, longest=2.0)
                attempt += 1


class Teller:
    """Publishes events, on the next session when one is lost."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session: Session | None = None

    async def tell(self, events: list[Event], passed: list[PassthroughEvent]) -> None:
        """Publish all; return when they are confirmed.

        Raises:
            BrokerUnavailableError, FateUnknownError: not within `EMIT_PATIENCE`.
        """
        deadline = asyncio.get_running_loop().time() + EMIT_PATIENCE
        attempt = 0
        while True:
            try:
                if self._session is None:
                    self._session = await open_session(self._settings, name="mms-admin rebuild")
                await emit(self._session, Untold(events, [], passthrough=passed))
            except (BrokerUnavailableError, FateUnknownError):
                await self.aclose()
                if asyncio.get_running_loop().time() >= deadline:
                    raise
                await backoff(attempt)
                attempt += 1
            else:
                return

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
