"""The check after a run: is all that was answered 200 in the state, and was it told of?

What should be there follows from the lifecycles and the ledger alone; what is there is read from
Redis and from the event log, again and again until all has arrived or nothing more comes.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Final, cast

import msgspec
from redis.exceptions import RedisError

from ingest.simulate.eventlog import EventLog
from ingest.simulate.judge import Fault, Finding, judge
from ingest.simulate.ledger import Ledger
from ingest.simulate.lifecycles import Message, Messages
from shared.errors import BrokerUnavailableError, StateUnavailableError
from shared.postback.normalise import Key
from shared.postback.record import Record, read_record
from shared.redis.client import State, client, close
from shared.settings.settings import Settings

CHUNK: Final = 500
TIME_LIMIT: Final = 10.0
"""Seconds that Redis may take for one chunk of records."""

POLL: Final = 0.5
QUIET: Final = 1.0
"""Seconds without an event after which the log is taken to be read to its end."""


class Report(msgspec.Struct, kw_only=True):
    """What the check found.

    Attributes:
        messages: how many messages were checked: all of which something was sent.
        passthrough: postbacks of other origins that there is an event of.
        answered: postbacks among theirs that were answered 200 and so must be in the state.
        in_state: postbacks found in the state.
        events: events read, with duplicates.
        duplicated_events: how many of them had an id that was seen before. At least once is the
            promise, so these are allowed; without crashes there should be none.
        lost: answered 200 and not in the state; or decided and not told of.
        wrong: what the state or the last event says is not what follows from the postbacks.
        unexpected: in the state or told of, though nobody sent it.
        seconds: how long it took until all had arrived, or until nothing more came.
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
        """Whether there was something to check, and nothing is amiss."""
        return self.answered > 0 and not (self.lost or self.wrong or self.unexpected)


async def verify(
    settings: Settings,
    messages: Messages,
    ledger: Ledger,
    *,
    settle: float = 60.0,
    watch: Callable[[int, int], None] | None = None,
) -> Report:
    """Wait until everything has arrived, then compare; see `judge` for what counts as what.

    Args:
        settings: where RabbitMQ and Redis are.
        ledger: what `provider.send` returned for these messages.
        settle: seconds to go on waiting once nothing more arrives.
        watch: told now and then how many messages are not yet as they should be, and of how many.

    Raises:
        StateUnavailableError, BrokerUnavailableError: still away after `settle`.
        TopologyConflictError: RabbitMQ is not the one of our processes.
    """
    began = asyncio.get_running_loop().time()
    log = EventLog(settings, messages.run, messages.source, ledger.began)
    state = client(settings.redis_url, TIME_LIMIT, settings.tls_ca)
    check = _Check(messages, ledger, state, log)
    try:
        await check.settle(settle, watch or (lambda _open, _all: None))
        seconds = asyncio.get_running_loop().time() - began
        await log.quiet(QUIET, longest=settle)
        findings = await check.findings()
    finally:
        await close(state)
        await log.close()
    return Report(
        messages=len(check.sent),
        passthrough=len(log.passthrough),
        answered=ledger.answered,
        in_state=check.in_state,
        events=log.events,
        duplicated_events=log.events - sum(len(told.ids) for told in log.told.values()),
        lost=[finding for finding in findings if finding.fault is Fault.LOST],
        wrong=[finding for finding in findings if finding.fault is Fault.WRONG],
        unexpected=[finding for finding in findings if finding.fault is Fault.UNEXPECTED],
        seconds=round(seconds, 3),
    )


class _Check:
    def __init__(self, messages: Messages, ledger: Ledger, state: State, log: EventLog) -> None:
        self._messages = messages
        self._ledger = ledger
        self._state = state
        self._log = log
        self.in_state = 0
        self.sent = [
            index
            for index in range(len(messages))
            if any(map(ledger.was_sent, messages.numbers(index)))
        ]

    async def settle(self, patience: float, watch: Callable[[int, int], None]) -> None:
        """Wait until all messages are as they should be, or nothing has come for `patience`."""
        loop = asyncio.get_running_loop()
        missing, events, progress_at = self.sent, -1, loop.time()
        while True:
            started = loop.time()
            failure = None
            still = missing
            try:
                await self._log.follow()
                still = await self._still_missing(missing)
            except (StateUnavailableError, BrokerUnavailableError) as error:
                failure = error
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
            # Redis tells nobody of a change, so ask again; the longer asking takes, the rarer.
            await asyncio.sleep(max(POLL, loop.time() - started))

    async def findings(self) -> list[Finding]:
        """Look at everything once more, and twice at what seems amiss."""
        self.in_state = 0
        amiss = set()
        async for message, record in self._read(self.sent):
            self.in_state += len(record.entries) if record else 0
            if any(self._judge(message, record)):
                amiss.add(message.ordinal)
        if amiss:
            await self._log.quiet(QUIET, longest=TIME_LIMIT)
        findings = [
            finding
            async for message, record in self._read(sorted(amiss))
            for finding in self._judge(message, record)
        ]
        findings += self._strange_events()
        findings += self._other_origins()
        async for finding in self._strange_records():
            findings.append(finding)
        return findings

    def _judge(self, message: Message, record: Record | None) -> Iterator[Finding]:
        return judge(message, self._ledger, record, self._log.told)

    async def _still_missing(self, missing: list[int]) -> list[int]:
        """Those that are not yet as they should be. When none of a chunk is, the rest can wait."""
        still: list[int] = []
        for start in range(0, len(missing), CHUNK):
            chunk = missing[start : start + CHUNK]
            amiss = [
                message.ordinal
                for message, record in await self._records(chunk)
                if any(self._judge(message, record))
            ]
            still += amiss
            if len(amiss) == len(chunk):
                return still + missing[start + CHUNK :]
        return still

    async def _read(self, indices: Sequence[int]) -> AsyncIterator[tuple[Message, Record | None]]:
        for start in range(0, len(indices), CHUNK):
            for pair in await self._records(indices[start : start + CHUNK]):
                yield pair

    async def _records(self, indices: Sequence[int]) -> list[tuple[Message, Record | None]]:
        """The messages at these indices, with what is known of them."""
        messages = [self._messages[index] for index in indices]
        keys = [Key(message.kind, self._messages.source, message.id) for message in messages]
        with _unavailable():
            async with self._state.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.hgetall(key.redis)
                hashes = cast("list[dict[bytes, bytes]]", await pipeline.execute())
        records = map(read_record, keys, hashes)
        return list(zip(messages, records, strict=True))

    def _other_origins(self) -> Iterator[Finding]:
        """Postbacks of other origins: each that was answered 200 is an event, and no other is."""
        for name, answered in self._ledger.other_origins.items():
            if answered and name not in self._log.passthrough:
                yield Finding(Fault.LOST, name, "of another origin, answered 200, and no event")
        for name in self._log.passthrough.difference(self._ledger.other_origins):
            yield Finding(Fault.UNEXPECTED, name, "an event of another origin; never sent")

    def _strange_events(self) -> Iterator[Finding]:
        """Events for records that we sent nothing for."""
        for subject, track in self._log.told:
            if not self._was_sent("template" if track == "template" else "message", subject):
                yield Finding(Fault.UNEXPECTED, subject, f"an event about its {track}; never sent")
        for body in self._log.unreadable:
            yield Finding(Fault.UNEXPECTED, self._messages.run, f"no event: {body}")

    async def _strange_records(self) -> AsyncIterator[Finding]:
        """Records with an id of this run that we sent nothing for."""
        source, run = self._messages.source, self._messages.run
        shape = re.compile(rf"mms:(message|template):\{{{source}/(.*)\}}")
        with _unavailable():
            async for name in self._state.scan_iter(f"mms:*{{{source}/*{run}-*", count=5000):
                match = shape.fullmatch(name.decode(errors="replace"))
                if match and not self._was_sent(match[1], match[2]):
                    yield Finding(Fault.UNEXPECTED, match[2], f"a {match[1]} record; never sent")

    def _was_sent(self, kind: str, found: str) -> bool:
        message = self._messages.find(kind, found)
        return message is not None and any(
            map(self._ledger.was_sent, self._messages.numbers(message.ordinal))
        )


@contextlib.contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        raise StateUnavailableError(
            f"cannot check: Redis is not available ({reason}); see MMS_REDIS_URL"
        ) from error
