"""The events of a run in `mms.events.log`: their ids, how often each came, the last outcome."""

import asyncio
from datetime import UTC, datetime
from typing import Final

import msgspec
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import AMQPError

from shared.errors import BrokerUnavailableError
from shared.rabbitmq.session import Session, open_session
from shared.rabbitmq.topology import EVENT_LOG
from shared.settings.settings import Settings

PREFETCH: Final = 2000
ACKNOWLEDGE_EVERY: Final = 500
CALL_LIMIT: Final = 5.0

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
        self._unacknowledged = 0
        self._session: Session | None = None
        self._arrived = asyncio.Event()
        self.tracks: dict[tuple[str, str], TrackEvents] = {}
        self.passthrough: set[str] = set()
        self.events = 0
        self.unreadable: list[str] = []

    async def follow(self) -> None:
        """Start to read, or continue after a lost connection. Does nothing while it reads.

        Raises:
            BrokerUnavailableError: RabbitMQ does not answer.
        """
        if self._session is not None and self._session.open:
            return
        self._session = await open_session(self._settings, name="mms-simulate", prefetch=PREFETCH)
        self._unacknowledged = 0
        offset = self._since if self._read_to is None else self._read_to + 1
        try:
            async with asyncio.timeout(CALL_LIMIT):
                await self._session.channel.basic_consume(
                    EVENT_LOG, self._take, arguments={"x-stream-offset": offset}
                )
        except (TimeoutError, AMQPError, OSError, RuntimeError) as error:
            raise BrokerUnavailableError(f"cannot read {EVENT_LOG}: {error}") from error

    async def quiet(self, seconds: float, longest: float) -> None:
        """Return when no message has come for so many seconds, at the latest after `longest`."""
        try:
            async with asyncio.timeout(longest):
                while await self._more(seconds):
                    pass
        except TimeoutError:
            pass

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _more(self, within: float) -> bool:
        self._arrived.clear()
        try:
            async with asyncio.timeout(within):
                await self._arrived.wait()
        except TimeoutError:
            return False
        return True

    async def _take(self, message: DeliveredMessage) -> None:
        self._arrived.set()
        offset = (message.header.properties.headers or {}).get("x-stream-offset")
        if isinstance(offset, int):
            self._read_to = max(offset, self._read_to or 0)
        if self._mark in message.body:
            self.add(message.body)
        self._unacknowledged += 1
        if self._unacknowledged >= ACKNOWLEDGE_EVERY and message.delivery_tag:
            self._unacknowledged = 0
            await message.channel.basic_ack(message.delivery_tag, multiple=True, wait=False)

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
