"""Decode and merge archived batches window by window; publish the events of what changed."""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from shared.backoff import backoff
from shared.errors import BrokerUnavailableError, PublishOutcomeUnknownError
from shared.postback import envelope
from shared.rabbitmq.session import Session, open_session
from shared.settings.settings import Settings
from workers.admin.unpublished import Span, Unpublished
from workers.consumer import Delivery
from workers.dead_letters import refused_postbacks
from workers.decode import Decoded, decode_batch
from workers.merge import REDIS_WAIT_LIMIT, merge_or_wait
from workers.outbox import Outbox
from workers.publish import publish_outbox
from workers.store import Store
from workers.verdicts import Merged, Received, Unmergeable, due_events

WINDOW_POSTBACKS: Final = 1500
"""Postbacks that are merged together."""

PUBLISH_WAIT_LIMIT: Final = 60.0
"""Seconds to wait for Redis or RabbitMQ when events are published. After that the run ends, and
the next run publishes the events."""

MAX_COUNTED_RECORDS: Final = 1_000_000
"""Records that are counted; remembering more would take too much memory."""


class Summary(msgspec.Struct):
    """What a rebuild did.

    Attributes:
        undecodable: postbacks that are dead letters, and messages that are no batch.
        dead_letters: dead letters that were published: undecodable or refused.
        passthrough: postbacks of other origins, which are events and no part of the state.
        refused: postbacks that Redis refuses now and would refuse again.
        expired: events that were not published, because their postbacks came too long ago.
        records: records of the postbacks, at most `MAX_COUNTED_RECORDS`.
        finished: whether the run reached the end of the archive.
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
    """Decodes, merges and counts archived batches; in a dry run it does not use Redis.

    Args:
        publisher: publishes the events and dead letters that are due; None: none is published.
        earliest: microseconds since the Unix epoch; of earlier postbacks nothing is published.
        unpublished: where windows are noted before they are merged; None: they are not noted.
        again: whether an earlier run, which was killed, may have merged these batches without
            publishing their events.
    """

    def __init__(
        self,
        store: Store,
        summary: Summary,
        publisher: "EventPublisher | None",
        earliest: int = 0,
        *,
        unpublished: Unpublished | None = None,
        again: bool = False,
    ) -> None:
        self._earliest = earliest
        self._store = store
        self._summary = summary
        self._publisher = publisher
        self._unpublished = unpublished
        self._again = again
        self._window = Decoded([], [], [])
        self._first: int | None = None
        self._last = 0
        self._seen: set[int] = set()

    async def take(self, body: bytes, offset: int) -> None:
        """Add one archived batch; when the window is full, merge and publish it.

        Args:
            offset: the batch's place in the archive.

        Raises:
            StateUnavailableError: Redis stayed away longer than `REDIS_WAIT_LIMIT`; when events are
                published, longer than `PUBLISH_WAIT_LIMIT`.
            BrokerUnavailableError, PublishOutcomeUnknownError: events could not be published within
                `PUBLISH_WAIT_LIMIT`.
        """
        self._summary.batches += 1
        self._first = offset if self._first is None else self._first
        self._last = offset
        decoded = Decoded([], [], [])
        delivery = Delivery(
            0, envelope.CONTENT_TYPE, body, self._again, batch_id=envelope.batch_id(body)
        )
        self._summary.postbacks += len(decode_batch(delivery, decoded) or ())
        self._add(decoded)
        if self._window.postbacks >= WINDOW_POSTBACKS:
            await self.flush()

    def _add(self, decoded: Decoded) -> None:
        self._summary.undecodable += len(decoded.dead)
        self._summary.passthrough += len(decoded.passthrough)
        self._window.received.extend(decoded.received)
        for received in decoded.received:
            if len(self._seen) < MAX_COUNTED_RECORDS:
                self._seen.add(hash(received.normalised.key))
        if self._publisher is not None:
            # These have no record, so nothing shows whether an earlier run published them. Every
            # run publishes them again.
            self._window.passthrough.extend(
                each for each in decoded.passthrough if each.arrival.received_at >= self._earliest
            )
            self._window.dead.extend(
                each for each in decoded.dead if (each.received_at or 0) >= self._earliest
            )

    async def flush(self) -> None:
        """Merge the postbacks of the window, then publish the events and dead letters of it.

        Raises:
            PostbacksError: as `take`.
        """
        (received, dead, passthrough), self._window = self._window, Decoded([], [], [])
        first, self._first = self._first, None
        self._summary.records = len(self._seen)
        if self._summary.dry_run or first is None:
            return
        events = []
        span = Span(first, self._last, self._earliest)
        for result in await self._merge(received, span) if received else ():
            if isinstance(result, Unmergeable):
                self._summary.refused += len(result.received)
                dead += refused_postbacks(result)
                continue
            new = len(result.new())
            self._summary.new += new
            self._summary.duplicates += len(result.received) - new
            for event, last in due_events(result, replayed=True):
                if last.arrival.received_at >= self._earliest:
                    events.append(event)
                elif self._publisher is not None:
                    self._summary.expired += 1
        if self._publisher is not None and (events or passthrough or dead):
            await self._publisher.publish(
                Outbox(events, dead, passthrough=[each.event for each in passthrough])
            )
            self._summary.events += len(events) + len(passthrough)
            self._summary.dead_letters += len(dead)

    async def _merge(self, received: Sequence[Received], span: Span) -> list[Merged | Unmergeable]:
        async def note_and_merge(window: Sequence[Received]) -> list[Merged | Unmergeable]:
            if self._unpublished is not None:
                await self._unpublished.note(span)
            return await self._store.merge(window)

        limit = REDIS_WAIT_LIMIT if self._publisher is None else PUBLISH_WAIT_LIMIT
        return await merge_or_wait(note_and_merge, received, limit)


class EventPublisher:
    """Publishes events and dead letters; opens a new session when the session is lost."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session: Session | None = None

    async def publish(self, outbox: Outbox) -> None:
        """Publish all; return when they are confirmed.

        Raises:
            BrokerUnavailableError, PublishOutcomeUnknownError: not within `PUBLISH_WAIT_LIMIT`.
        """
        deadline = asyncio.get_running_loop().time() + PUBLISH_WAIT_LIMIT
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
