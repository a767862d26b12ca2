"""Archived batches into Redis, window by window, and what that changed."""

import asyncio
from typing import Final

import msgspec

from shared.backoff import backoff
from shared.errors import (
    BrokerUnavailableError,
    OtherOriginError,
    PublishOutcomeUnknownError,
    StateUnavailableError,
    UndecodableError,
)
from shared.postback import envelope
from shared.postback.dead_letter import DeadLetter, Reason, dead_letter_of, unreadable_batch
from shared.postback.envelope import Arrival
from shared.postback.normalise import decode
from shared.postback.passthrough import PassthroughEvent, passthrough_of
from shared.rabbitmq.session import Session, open_session
from shared.settings.settings import Settings
from workers.admin.unpublished import Span, Unpublished
from workers.outbox import Outbox, dead_letters_of
from workers.publish import publish_outbox
from workers.store import Merged, Received, Store, Unmergeable
from workers.verdicts import due_events

WINDOW: Final = 1500
"""Postbacks that are merged together."""

REDIS_WAIT_LIMIT: Final = 10.0
"""Seconds to wait for Redis before giving up; what is merged stays merged."""

EMIT_PATIENCE: Final = 60.0
"""Seconds to wait for Redis or RabbitMQ with events unpublished; the next run publishes them."""

EXACT: Final = 1_000_000
"""Up to how many records are told apart; remembering more would take too much memory."""


class Summary(msgspec.Struct):
    """What a rebuild did.

    Attributes:
        undecodable: postbacks that are dead letters, and messages that are no batch.
        dead_letters: dead letters that were published: what is undecodable or refused.
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
    dead_letters: int = 0
    expired: int = 0
    seconds: float = 0.0
    postbacks_per_second: int = 0
    dry_run: bool = False
    finished: bool = False


class Restorer:
    """Decodes and merges batches, counting; in a dry run it leaves Redis alone.

    Args:
        teller: publishes the events and dead letters that are due; None: they are not published.
        earliest: microseconds since the Unix epoch; nothing of what came before is published.
        unpublished: where windows are noted before they are merged; None: nowhere.
        again: whether a run that was killed may have merged what comes, and not published it.
    """

    def __init__(
        self,
        store: Store,
        summary: Summary,
        teller: "EventPublisher | None",
        earliest: int = 0,
        *,
        unpublished: Unpublished | None = None,
        again: bool = False,
    ) -> None:
        self._earliest = earliest
        self._store = store
        self._summary = summary
        self._teller = teller
        self._unpublished = unpublished
        self._again = again
        self._window: list[Received] = []
        self._passed: list[PassthroughEvent] = []
        self._dead: list[DeadLetter] = []
        self._first: int | None = None
        self._last = 0
        self._seen: set[int] = set()

    async def take(self, body: bytes, offset: int) -> None:
        """Add one archived batch; merges when a window is full.

        Args:
            offset: its place in the archive.

        Raises:
            StateUnavailableError: Redis stayed away longer than `REDIS_WAIT_LIMIT`, with events to
                publish longer than `EMIT_PATIENCE`.
            BrokerUnavailableError, PublishOutcomeUnknownError: events could not be told within
                `EMIT_PATIENCE`.
        """
        self._summary.batches += 1
        self._first = offset if self._first is None else self._first
        self._last = offset
        try:
            batch = envelope.decode(body)
        except msgspec.DecodeError as error:
            self._bury(
                unreadable_batch(body, envelope.CONTENT_TYPE, str(error), envelope.batch_id(body))
            )
            batch = []
        for arrival in batch:
            self._summary.postbacks += 1
            self._decode(arrival, body)
        if len(self._window) + len(self._passed) + len(self._dead) >= WINDOW:
            await self.flush()

    def _decode(self, arrival: Arrival, batch: bytes) -> None:
        try:
            try:
                normalised = decode(arrival.source, arrival.body)
            except OtherOriginError as other:
                self._pass_on(arrival, passthrough_of(arrival, other.fields))
                return
        except UndecodableError as error:
            self._bury(dead_letter_of(arrival, error.reason, str(error), envelope.batch_id(batch)))
            return
        except Exception as error:  # noqa: BLE001 - nothing but this body can be the cause
            why = f"processing it failed: {type(error).__name__}"
            self._bury(dead_letter_of(arrival, Reason.UNDELIVERABLE, why, envelope.batch_id(batch)))
            return
        self._window.append(Received(arrival, normalised, redelivered=self._again))
        if len(self._seen) < EXACT:
            self._seen.add(hash(normalised.key))

    def _pass_on(self, arrival: Arrival, event: PassthroughEvent) -> None:
        """No record says whether its event was published, so it is published again."""
        self._summary.passthrough += 1
        if self._teller is not None and arrival.received_at >= self._earliest:
            self._passed.append(event)

    def _bury(self, dead_letter: DeadLetter) -> None:
        """Nothing says whether it was published, so it is published again."""
        self._summary.undecodable += 1
        if self._teller is not None and (dead_letter.received_at or 0) >= self._earliest:
            self._dead.append(dead_letter)

    async def flush(self) -> None:
        """Merge what is waiting, then publish what is due.

        Raises:
            PostbacksError: as `take`.
        """
        window, self._window = self._window, []
        passed, self._passed = self._passed, []
        dead, self._dead = self._dead, []
        first, self._first = self._first, None
        self._summary.records = len(self._seen)
        if self._summary.dry_run or first is None:
            return
        events = []
        span = Span(first, self._last, self._earliest)
        for result in await self._merge(window, span) if window else ():
            if isinstance(result, Unmergeable):
                self._summary.refused += len(result.received)
                dead += dead_letters_of(result)
                continue
            new = result.results.lower().count("n")
            self._summary.new += new
            self._summary.duplicates += len(result.received) - new
            for event, received in due_events(result, replayed=True):
                if received.arrival.received_at >= self._earliest:
                    events.append(event)
                elif self._teller is not None:
                    self._summary.expired += 1
        if self._teller is not None and (events or passed or dead):
            await self._teller.tell(Outbox(events, dead, passthrough=passed))
            self._summary.events += len(events) + len(passed)
            self._summary.dead_letters += len(dead)

    async def _merge(self, window: list[Received], span: Span) -> list[Merged | Unmergeable]:
        patience = REDIS_WAIT_LIMIT if self._teller is None else EMIT_PATIENCE
        deadline = asyncio.get_running_loop().time() + patience
        attempt = 0
        while True:
            try:
                if self._unpublished is not None:
                    await self._unpublished.note(span)
                return await self._store.merge(window)
            except StateUnavailableError:
                if asyncio.get_running_loop().time() >= deadline:
                    raise
                # Part of it may have been done: what decides is then told of though it is known.
                window = [each._replace(redelivered=True) for each in window]
                await backoff(attempt, longest=2.0)
                attempt += 1


class EventPublisher:
    """Publishes events, on the next session when one is lost."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session: Session | None = None

    async def tell(self, outbox: Outbox) -> None:
        """Publish all; return when they are confirmed.

        Raises:
            BrokerUnavailableError, PublishOutcomeUnknownError: not within `EMIT_PATIENCE`.
        """
        deadline = asyncio.get_running_loop().time() + EMIT_PATIENCE
        attempt = 0
        while True:
            try:
                if self._session is None:
                    self._session = await open_session(self._settings, name="mms-admin rebuild")
                await publish_outbox(self._session, outbox)
            except (BrokerUnavailableError, PublishOutcomeUnknownError):
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
