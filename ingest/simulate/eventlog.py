"""What the event log tells of a run: which events, how often, and what stands last."""

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

CLOCKS: Final = 30.0
"""Seconds that RabbitMQ's clock may be behind ours. Reading begins so much earlier."""


class Told(msgspec.Struct):
    """All events for one track of one record.

    Attributes:
        ids: event id to how often it was seen.
        outcomes: every outcome that was told.
        sequence: the highest that was seen.
        last: the outcome that the event with the highest sequence says.
    """

    ids: dict[str, int]
    outcomes: set[str]
    sequence: str
    last: str


class _Data(msgspec.Struct):
    outcome: str = ""


class _Event(msgspec.Struct):
    """What is looked at of an event; read without the code that writes them."""

    id: str
    type: str
    source: str
    subject: str
    data: _Data
    sequence: str = ""


class EventLog:
    """Reads `mms.events.log` from the beginning of a run on, and keeps what concerns it.

    Attributes:
        told: by subject and track.
        passthrough: ids of postbacks of other origins that there is an event of.
        events: how many events of this run were read.
        unreadable: messages that name the run and are no events.
    """

    def __init__(self, settings: Settings, run: str, source: str, since: float) -> None:
        self._settings = settings
        self._mark = f"{run}-".encode()
        self._source = f"/mms-postbacks/{source}"
        self._since = datetime.fromtimestamp(max(0.0, since - CLOCKS), UTC)
        self._read_to: int | None = None
        self._unacknowledged = 0
        self._session: Session | None = None
        self._arrived = asyncio.Event()
        self.told: dict[tuple[str, str], Told] = {}
        self.passthrough: set[str] = set()
        self.events = 0
        self.unreadable: list[str] = []

    async def follow(self) -> None:
        """Begin to read, or go on where the connection was lost; does nothing while reading.

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
        """Return when nothing has come for so many seconds, or after the longest wait."""
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
            self.keep(message.body)
        self._unacknowledged += 1
        if self._unacknowledged >= ACKNOWLEDGE_EVERY and message.delivery_tag:
            self._unacknowledged = 0
            await message.channel.basic_ack(message.delivery_tag, multiple=True, wait=False)

    def keep(self, body: bytes) -> None:
        """Take in one message of the log that names this run."""
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
        told = self.told.setdefault((event.subject, track), Told({}, set(), "", ""))
        told.ids[event.id] = told.ids.get(event.id, 0) + 1
        told.outcomes.add(outcome if outcome == event.data.outcome else f"{outcome} (type only)")
        if event.sequence >= told.sequence:
            told.sequence, told.last = event.sequence, outcome


_decode: Final = msgspec.json.Decoder(_Event).decode
