"""The events of a run in `mms.events.log`: their ids, how often each came, the last outcome."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Final

import msgspec
from aiormq.abc import DeliveredMessage

from shared.rabbitmq.reader import Reader, offset_of
from shared.rabbitmq.reconnect import Sessions
from shared.rabbitmq.session import Session, open_session
from shared.rabbitmq.topology import EVENT_LOG
from shared.settings.settings import Settings

PREFETCH: Final = 2000
ACKNOWLEDGED_TOGETHER: Final = 500
"""Messages that RabbitMQ may send ahead, and messages that one acknowledgement covers."""

READ_LIMIT: Final = 60.0
"""Seconds to wait for a message before waiting for it again."""

CLOCK_DIFFERENCE: Final = 30.0
"""Seconds that RabbitMQ's clock may be behind ours. Reading begins this much earlier."""


class TrackEvents(msgspec.Struct):
    """All events for one track of one record.

    Attributes:
        ids: how often each event id came.
        outcomes: the outcomes of the events.
        sequence: the highest sequence.
        last_outcome: the outcome of the event with the highest sequence.
    """

    ids: dict[str, int]
    outcomes: set[str]
    sequence: str
    last_outcome: str


class _Data(msgspec.Struct):
    outcome: str = ""


class _Event(msgspec.Struct):
    """The fields of an event that are checked. The code that writes events is not used here."""

    id: str
    type: str
    source: str
    subject: str
    data: _Data
    sequence: str = ""


class EventLog:
    """Reads `mms.events.log` from the beginning of a run and collects the run's events.

    Attributes:
        problem: why the log cannot be read now; None when it can.
        tracks: events by subject and track.
        passthrough: ids of postbacks of other origins that have an event.
        events: how many events of this run were read.
        unreadable: messages that contain the name of the run but are not events.
    """

    def __init__(self, settings: Settings, run: str, source: str, since: float) -> None:
        self._settings = settings
        self._mark = f"{run}-".encode()
        self._source = f"/mms-postbacks/{source}"
        self._since = datetime.fromtimestamp(max(0.0, since - CLOCK_DIFFERENCE), UTC)
        self._read_to: int | None = None
        self._arrived = asyncio.Event()
        self.problem: str | None = "not connected to RabbitMQ yet"
        self.tracks: dict[tuple[str, str], TrackEvents] = {}
        self.passthrough: set[str] = set()
        self.events = 0
        self.unreadable: list[str] = []

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Read the log as long as the context lasts; after a lost connection, from where it ended.

        Raises:
            BaseExceptionGroup: with a `TopologyConflictError`, RabbitMQ is not that of our
                processes.
        """
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._read())
            yield
            reading.cancel()

    async def quiet(self, seconds: float, longest: float) -> None:
        """Return when no message has come for so many seconds, at the latest after `longest`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest):
                while await self._more(seconds):
                    pass

    async def _more(self, within: float) -> bool:
        self._arrived.clear()
        try:
            async with asyncio.timeout(within):
                await self._arrived.wait()
        except TimeoutError:
            return False
        return True

    async def _read(self) -> None:
        sessions = Sessions(self._open_session, self._report)
        while True:
            async with sessions.next() as session:
                reader = Reader(session, EVENT_LOG)
                await reader.start(self._since if self._read_to is None else self._read_to + 1)
                unacknowledged = 0
                while True:
                    message = await reader.next(READ_LIMIT)
                    if message is None:
                        continue
                    self._take(message)
                    unacknowledged += 1
                    if unacknowledged >= ACKNOWLEDGED_TOGETHER:
                        await reader.acknowledge(message, multiple=True)
                        unacknowledged = 0

    async def _open_session(self) -> Session:
        return await open_session(self._settings, name="mms-simulate", prefetch=PREFETCH)

    def _report(self, problem: str | None) -> None:
        self.problem = problem

    def _take(self, message: DeliveredMessage) -> None:
        self._arrived.set()
        self._read_to = max(offset_of(message), self._read_to or 0)
        if self._mark in message.body:
            self.add(message.body)

    def add(self, body: bytes) -> None:
        """Add one message of the log that contains the name of this run."""
        try:
            event = _decode(body)
            _, track, outcome = event.type.split(".")
        except (msgspec.DecodeError, ValueError):
            self.unreadable.append(body[:200].decode(errors="replace"))
            return
        if event.source != self._source:
            return
        if track == "passthrough":
            self.passthrough.add(event.subject)
            return
        if not event.sequence or not event.data.outcome:
            self.unreadable.append(body[:200].decode(errors="replace"))
            return
        self.events += 1
        seen = self.tracks.setdefault((event.subject, track), TrackEvents({}, set(), "", ""))
        seen.ids[event.id] = seen.ids.get(event.id, 0) + 1
        seen.outcomes.add(outcome if outcome == event.data.outcome else f"{outcome} (type only)")
        if event.sequence >= seen.sequence:
            seen.sequence, seen.last_outcome = event.sequence, outcome


_decode: Final = msgspec.json.Decoder(_Event).decode
