"""The check after a run: is every postback that was answered 200 in the state and in the events?

The expected state follows from the lifecycles and the ledger alone. The actual state is read from
Redis and from the event log, repeatedly, until everything has arrived or nothing more comes.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Final, cast

import msgspec

from ingest.simulate.eventlog import EventLog
from ingest.simulate.judge import Fault, Finding, judge
from ingest.simulate.ledger import Ledger
from ingest.simulate.lifecycles import Message, Messages
from shared.errors import BrokerUnavailableError, PostbacksError, StateUnavailableError
from shared.postback.postback import Key
from shared.postback.record import Record
from shared.postback.stored import read_record
from shared.redis.client import RedisClient, client, close
from shared.redis.errors import redis_errors
from shared.settings.settings import Settings

CHUNK: Final = 500
REDIS_LIMIT: Final = 10.0
"""Seconds that Redis may take for one chunk of records."""

POLL_INTERVAL: Final = 0.5
QUIET_TIME: Final = 1.0
"""Seconds without an event after which the log counts as read to its end."""


class Report(msgspec.Struct, kw_only=True):
    """The result of the check.

    Attributes:
        messages: how many messages were checked: those with at least one postback sent.
        passthrough: postbacks of other origins that have an event.
        answered: postbacks that were answered 200 and so must be in the state.
        in_state: postbacks found in the state.
        events: events read, including duplicates.
        duplicated_events: events with an id that came before. Events are at least once, so these
            are allowed; without crashes there should be none.
        lost: postbacks that were answered 200 and are not in the state, or terminal outcomes
            without an event.
        wrong: outcomes in the state or in the last event that do not follow from the postbacks.
        unexpected: postbacks, records or events that do not come from what was sent.
        seconds: time until everything had arrived, or until nothing more came.
    """

    messages: int
    passthrough: int
    answered: int
    in_state: int
    events: int
    duplicated_events: int
    lost: list[Finding]
    wrong: list[Finding]
    unexpected: list[Finding]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether there was something to check and it is right."""
        return self.answered > 0 and not (self.lost or self.wrong or self.unexpected)


async def verify(
    settings: Settings,
    messages: Messages,
    ledger: Ledger,
    *,
    settle: float = 60.0,
    watch: Callable[[int, int], None] | None = None,
) -> Report:
    """Wait until everything has arrived, then compare; `judge` defines the kinds of findings.

    Args:
        settings: the addresses of RabbitMQ and Redis.
        ledger: the result of `provider.send` for these messages.
        settle: seconds without a change after which waiting ends.
        watch: called several times with the number of incomplete messages and of all messages.

    Raises:
        BaseExceptionGroup: with a `StateUnavailableError` or `BrokerUnavailableError`, a server is
            still unavailable after `settle`; with a `TopologyConflictError`, the topology of
            RabbitMQ is not that of our processes.
    """
    began = asyncio.get_running_loop().time()
    log = EventLog(settings, messages.run, messages.source, ledger.began)
    redis = client(settings.redis_url, REDIS_LIMIT, settings.tls_ca)
    check = _Check(messages, ledger, redis, log)
    try:
        async with log.following():
            await check.settle(settle, watch or (lambda _open, _all: None))
            seconds = asyncio.get_running_loop().time() - began
            await log.quiet(QUIET_TIME, longest=settle)
            findings = await check.findings()
    finally:
        await close(redis)
    return Report(
        messages=len(check.sent),
        passthrough=len(log.passthrough),
        answered=ledger.answered,
        in_state=check.in_state,
        events=log.events,
        duplicated_events=log.events - sum(len(seen.ids) for seen in log.tracks.values()),
        lost=[finding for finding in findings if finding.fault is Fault.LOST],
        wrong=[finding for finding in findings if finding.fault is Fault.WRONG],
        unexpected=[finding for finding in findings if finding.fault is Fault.UNEXPECTED],
        seconds=round(seconds, 3),
    )


class _Check:
    def __init__(
        self, messages: Messages, ledger: Ledger, redis: RedisClient, log: EventLog
    ) -> None:
        self._messages = messages
        self._ledger = ledger
        self._redis = redis
        self._log = log
        self.in_state = 0
        self.sent = [
            index
            for index in range(len(messages))
            if any(map(ledger.was_sent, messages.numbers(index)))
        ]

    async def settle(self, patience: float, watch: Callable[[int, int], None]) -> None:
        """Wait until all messages are right, or nothing has changed for `patience` seconds."""
        loop = asyncio.get_running_loop()
        missing, events, progress_at = self.sent, -1, loop.time()
        while True:
            started = loop.time()
            failure: PostbacksError | None = None
            still = missing
            try:
                still = await self._still_missing(missing)
            except StateUnavailableError as error:
                failure = error
            if self._log.problem is not None:
                failure = BrokerUnavailableError(self._log.problem)
            watch(len(still), len(self.sent))
            if not (still or any(self._other_origins())) and failure is None:
                return
            if len(still) < len(missing) or self._log.events > events:
                progress_at = loop.time()
            elif loop.time() - progress_at >= patience:
                if failure is not None:
                    raise failure
                return
            missing, events = still, self._log.events
            # Redis does not announce changes, so read again, less often when reading takes long.
            await asyncio.sleep(max(POLL_INTERVAL, loop.time() - started))

    async def findings(self) -> list[Finding]:
        """Check everything once more, and check messages with a finding twice."""
        self.in_state = 0
        suspect = set()
        async for message, record in self._read(self.sent):
            self.in_state += len(record.entries) if record else 0
            if any(self._judge(message, record)):
                suspect.add(message.ordinal)
        if suspect:
            await self._log.quiet(QUIET_TIME, longest=REDIS_LIMIT)
        findings = [
            finding
            async for message, record in self._read(sorted(suspect))
            for finding in self._judge(message, record)
        ]
        findings += self._unexpected_events()
        findings += self._other_origins()
        async for finding in self._unexpected_records():
            findings.append(finding)
        return findings

    def _judge(self, message: Message, record: Record | None) -> Iterator[Finding]:
        return judge(message, self._ledger, record, self._log.tracks)

    async def _still_missing(self, missing: list[int]) -> list[int]:
        """The messages that are not right yet. If a whole chunk is not, the rest is not read."""
        still: list[int] = []
        for start in range(0, len(missing), CHUNK):
            chunk = missing[start : start + CHUNK]
            incomplete = [
                message.ordinal
                for message, record in await self._records(chunk)
                if any(self._judge(message, record))
            ]
            still += incomplete
            if len(incomplete) == len(chunk):
                return still + missing[start + CHUNK :]
        return still

    async def _read(self, indices: Sequence[int]) -> AsyncIterator[tuple[Message, Record | None]]:
        for start in range(0, len(indices), CHUNK):
            for pair in await self._records(indices[start : start + CHUNK]):
                yield pair

    async def _records(self, indices: Sequence[int]) -> list[tuple[Message, Record | None]]:
        """The messages at these indices with their records."""
        messages = [self._messages[index] for index in indices]
        keys = [Key(message.kind, self._messages.source, message.id) for message in messages]
        with redis_errors():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.hgetall(key.redis)
                hashes = cast("list[dict[bytes, bytes]]", await pipeline.execute())
        records = map(read_record, keys, hashes)
        return list(zip(messages, records, strict=True))

    def _other_origins(self) -> Iterator[Finding]:
        """Postbacks of other origins: each one answered 200 has an event, and no other has one."""
        for name, answered in self._ledger.other_origins.items():
            if answered and name not in self._log.passthrough:
                yield Finding(Fault.LOST, name, "of another origin, answered 200, has no event")
        for name in self._log.passthrough.difference(self._ledger.other_origins):
            yield Finding(Fault.UNEXPECTED, name, "has a passthrough event and was never sent")

    def _unexpected_events(self) -> Iterator[Finding]:
        """Events for records without a sent postback, and messages that are not events."""
        for subject, track in self._log.tracks:
            if not self._was_sent("template" if track == "template" else "message", subject):
                yield Finding(Fault.UNEXPECTED, subject, f"has a {track} event and was never sent")
        for body in self._log.unreadable:
            yield Finding(Fault.UNEXPECTED, self._messages.run, f"not an event: {body}")

    async def _unexpected_records(self) -> AsyncIterator[Finding]:
        """Records with an id of this run but without a sent postback."""
        source, run = self._messages.source, self._messages.run
        shape = re.compile(rf"mms:(message|template):\{{{source}/(.*)\}}")
        with redis_errors():
            pattern = f"mms:*{{{source}/*{run}-*"
            found = [name async for name in self._redis.scan_iter(pattern, count=5000)]
        for name in found:
            match = shape.fullmatch(name.decode(errors="replace"))
            if match and not self._was_sent(match[1], match[2]):
                what = f"has a {match[1]} record and was never sent"
                yield Finding(Fault.UNEXPECTED, match[2], what)

    def _was_sent(self, kind: str, found: str) -> bool:
        message = self._messages.find(kind, found)
        return message is not None and any(
            map(self._ledger.was_sent, self._messages.numbers(message.ordinal))
        )
