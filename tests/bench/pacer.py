"""Load at a fixed rate and its result, in a separate process.

Each POST is sent when it is due, whether or not earlier ones have been answered (an open loop), and
its times count from when it was due. So a server cannot hide that it stalls. Some messages have an
operator of their own, and a subscriber gets only their events (`message.*.<operator>`). This
measures the time from POST to event at a low cost. The HTTP client is minimal, with kept-alive
connections, and costs about 20 µs for each POST.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Annotated, Final, cast

import aio_pika
import aiormq.abc
import msgspec
import uvloop
from msgspec import Meta

from deploy.local.ports import HOST
from shared.rabbitmq.topology import EVENTS
from tests.bench import traffic

WATCHED: Final = "99999"
"""The operator of the watched messages, whose events are awaited."""

TICK: Final = 0.001
SETTLE_LIMIT: Final = 20.0
"""Seconds without an event after which waiting for events ends."""


class Job(msgspec.Struct, frozen=True):
    """What to send.

    Attributes:
        rate: POSTs a second.
        warm_up, seconds: of load; the warm-up is sent but not counted.
        watched: one in this many messages is watched.
        stop_lag: seconds; sending stops when a response or an event takes longer.
    """

    port: int
    amqp_url: str
    run: str
    rate: float
    warm_up: float
    seconds: float
    connections: Annotated[int, Meta(ge=1)] = 64
    watched: int = 4
    stop_lag: float = 5.0


class Times(msgspec.Struct, frozen=True):
    """Percentiles in milliseconds."""

    p50: float
    p99: float
    p999: float
    most: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Times":
        ranked = sorted(seconds) or [0.0]

        def at(share: float) -> float:
            return ranked[min(len(ranked) - 1, int(len(ranked) * share))] * 1e3

        return cls(at(0.5), at(0.99), at(0.999), at(1), len(seconds))


class Outcome(msgspec.Struct, frozen=True):
    """The result of a job.

    Attributes:
        sent: POSTs in total, of which `failed` were not answered 200.
        lost: watched messages without an event.
        answers: from the time when a POST was due to its response.
        events: from the time when the deciding POST was due to its event.
        lag: seconds; median of the slower of the two over the last tenth. It grows with a backlog.
        cut: whether sending stopped early because of `stop_lag`.
        cpu: CPU seconds of this process.
    """

    sent: int
    failed: int
    lost: int
    answers: Times
    events: Times
    lag: float
    cut: bool
    cpu: float = 0.0


class _Connection(asyncio.Protocol):
    """One kept-alive connection with one request at a time."""

    def __init__(self, sender: "_Sender") -> None:
        self._sender = sender
        self._buffer = b""
        self.number = -1
        self.transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)  # uvloop's has another class
        self._sender.free(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end or len(rest) < _length(head):
            return
        self._buffer = b""
        self._sender.answered(self.number, ok=head[9:12] == b"200")
        self._sender.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._sender.broken(self, exc)


def _length(head: bytes) -> int:
    found = head.lower().partition(b"content-length:")[2]
    return int(found.partition(b"\r\n")[0] or 0)


class _Sender:
    def __init__(self, job: Job) -> None:
        self.job = job
        self.first_counted = round(job.rate * job.warm_up)
        self.count = round(job.rate * (job.warm_up + job.seconds))
        self.answers: list[tuple[int, float]] = []
        self.events: list[tuple[int, float]] = []
        self.failed = 0
        self.sent = 0
        self.cut = False
        self.last_event = 0.0
        self._free: list[_Connection] = []
        self._due: deque[int] = deque()
        self._began = 0.0
        self._open = 0
        self._head = (
            f"POST {traffic.PATH} HTTP/1.1\r\nHost: {HOST}:{job.port}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()

    async def send_all(self) -> None:
        """Send each POST when it is due; return when all are answered."""
        loop = asyncio.get_running_loop()
        for _ in range(self.job.connections):
            await loop.create_connection(lambda: _Connection(self), HOST, self.job.port)
        self._began = time.monotonic()
        queued = 0
        while queued < self.count and not self.cut:
            due = min(self.count, int((time.monotonic() - self._began) * self.job.rate) + 1)
            self._due.extend(range(queued, due))
            queued = due
            self._flush()
            await asyncio.sleep(TICK)
        self.count = queued
        end = time.monotonic() + SETTLE_LIMIT
        while self._open and time.monotonic() < end:
            await asyncio.sleep(TICK)
        self.failed += self._open

    def free(self, connection: _Connection) -> None:
        self._free.append(connection)
        self._flush()

    def answered(self, number: int, *, ok: bool) -> None:
        self._open -= 1
        self.failed += not ok
        took = self._since(number)
        self.cut = self.cut or took > self.job.stop_lag
        self.answers.append((number, took))

    def broken(self, connection: _Connection, _error: Exception | None) -> None:
        if connection in self._free:
            self._free.remove(connection)
        elif connection.number >= 0:
            self._open -= 1
            self.failed += 1

    def event_came(self, message: int) -> None:
        """Enter the time of a message's event."""
        number = message * 2 + 1
        self.last_event = time.monotonic()
        took = self._since(number)
        self.cut = self.cut or took > self.job.stop_lag
        self.events.append((number, took))

    def watched(self) -> int:
        """How many watched messages were sent completely."""
        return len(range(0, self.count // 2, self.job.watched))

    def _since(self, number: int) -> float:
        return time.monotonic() - (self._began + number / self.job.rate)

    def _flush(self) -> None:
        while self._due and self._free:
            number = self._due.popleft()
            watched = (number >> 1) % self.job.watched == 0
            body = traffic.body(
                number, self.job.run, operator=WATCHED if watched else traffic.OPERATOR
            )
            connection = self._free.pop()
            connection.number = number
            self.sent += 1
            self._open += 1
            if connection.transport is not None:
                connection.transport.write(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))


class _Subject(msgspec.Struct):
    subject: str


async def pace(job: Job) -> Outcome:
    """Send, subscribe, and return the result."""
    sender = _Sender(job)
    decode = msgspec.json.Decoder(_Subject).decode

    async def receive(message: aiormq.abc.DeliveredMessage) -> None:
        run, _, number = decode(message.body).subject.rpartition("-")
        if run == job.run:
            sender.event_came(int(number))

    async with await aio_pika.connect(job.amqp_url) as connection:
        channel = await (await connection.channel()).get_underlay_channel()
        declared = await channel.queue_declare(exclusive=True)
        queue = str(declared.queue)
        await channel.queue_bind(queue, EVENTS, f"message.*.{WATCHED}")
        await channel.basic_consume(queue, receive, no_ack=True)
        await sender.send_all()
        sender.last_event = time.monotonic()
        while (
            len(sender.events) < sender.watched()
            and time.monotonic() - sender.last_event < SETTLE_LIMIT
        ):
            await asyncio.sleep(0.01)
    return _outcome(sender)


def _outcome(sender: _Sender) -> Outcome:
    def counted(times: Sequence[tuple[int, float]], first: int) -> list[float]:
        return [took for number, took in times if number >= first]

    first = sender.first_counted
    tail = first + (sender.count - first) * 9 // 10
    lags = [Times.of(counted(times, tail)).p50 for times in (sender.answers, sender.events)]
    return Outcome(
        sent=sender.sent,
        failed=sender.failed,
        lost=sender.watched() - len(sender.events),
        answers=Times.of(counted(sender.answers, first)),
        events=Times.of(counted(sender.events, first)),
        lag=max(lags) / 1e3,
        cut=sender.cut,
        cpu=time.process_time(),
    )


def main() -> None:
    """Read a `Job` as JSON, print an `Outcome` as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job")
    job = msgspec.convert(json.loads(parser.parse_args().job), Job)
    outcome = uvloop.run(pace(job))
    sys.stdout.write(msgspec.json.encode(outcome).decode() + "\n")


if __name__ == "__main__":
    main()
