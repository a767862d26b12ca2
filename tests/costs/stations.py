"""The steps of ingress and worker around the pure ones; stubs stand in place of the servers.

The stubs answer at once, and the clock of the event loop counts its readings. So a step does the
same work each time.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, cast

from aiormq.abc import ChannelFrame
from pamqp.commands import Basic

from ingest.batcher import Batcher, OnDone
from ingest.http.server import Server
from shared.postback import envelope
from shared.postback.envelope import Arrival
from shared.postback.event import CONTENT_TYPE
from shared.rabbitmq import confirms
from shared.rabbitmq.message import Message
from shared.rabbitmq.session import Result, Session
from shared.settings.settings import Settings
from tests.bench import traffic
from tests.costs.pure import BATCH, RECEIVED_AT, Step, finished_record, json_body, received
from workers.consumer import Delivery
from workers.outbox import Outbox
from workers.pipeline import process_window
from workers.publish import publish_outbox
from workers.store import Store
from workers.verdicts import Merged, Received, Unmergeable, Verdict

if TYPE_CHECKING:
    import aiormq

TICK: Final = 1e-5
"""Seconds between two readings of the event loop's clock."""


class CountingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock counts its readings."""

    _readings = 0

    def time(self) -> float:
        self._readings += 1
        return self._readings * TICK


def station_steps(loop: asyncio.AbstractEventLoop) -> dict[str, Step]:
    """The steps by name.

    Args:
        loop: not running; the steps run on it.
    """
    return {
        "HTTP request to batcher, and its response": loop.run_until_complete(_request()),
        "batch of 32, collected and resolved": _batch(loop),
        "window of 32 postbacks to outbox": _window(loop),
        "window of 32 postbacks to calls of Redis": _redis_calls(loop),
        "outbox of 32 events to messages": _messages(loop),
        "32 messages to frames, and their confirms": _frames(loop),
    }


class _OneByOne(Batcher):
    """A batcher that keeps the last arrival's `on_done`."""

    on_done: OnDone

    def enqueue(self, arrival: Arrival, deadline: float, on_done: OnDone) -> None:  # noqa: ARG002
        self.on_done = on_done


class _Transport(asyncio.Transport):
    """A socket that takes everything."""

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass


async def _request() -> Step:
    """A usual request on a kept-alive connection, on the fast path."""
    batcher = _OneByOne(_commit)
    connection = Server(Settings(), batcher).aiohttp_server()()
    connection.connection_made(_Transport({"peername": ("127.0.0.1", 50_000)}))
    await asyncio.sleep(0)  # aiohttp's task begins to wait
    body = json_body()
    request = (
        "POST /postbacks HTTP/1.1\r\nHost: mms.example.net\r\nUser-Agent: provider\r\n"
        f"Accept: */*\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body

    def call() -> None:
        connection.data_received(request)
        batcher.on_done("batch")

    return Step(call)


async def _commit(_batch: Sequence[Arrival]) -> str:
    return "batch"


def _batch(loop: asyncio.AbstractEventLoop) -> Step:
    """A full batch while no commit is in progress."""
    batcher = Batcher(_commit)
    running = loop.create_task(batcher.run())
    arrivals = list(traffic.arrivals(BATCH, "costs", RECEIVED_AT))

    async def call() -> None:
        done = [batcher.submit(arrival) for arrival in arrivals]
        for each in done:
            await each
        assert not running.done()

    return Step(lambda: loop.run_until_complete(call()), BATCH)


class _KnownResults(Store):
    """A store whose merges were computed before."""

    def __init__(self, results: Sequence[Merged]) -> None:
        super().__init__(Settings())
        self._results = results

    async def merge(self, window: Sequence[Received]) -> list[Merged | Unmergeable]:
        pairs = zip(self._results, window, strict=True)
        return [known._replace(received=[received]) for known, received in pairs]


def _results() -> list[Merged]:
    """Half of the postbacks are terminal and finish the record of their message."""
    verdicts = [Verdict.NEW]
    return [
        Merged([], verdicts, finished_record(number // 2) if number % 2 else None)
        for number in range(BATCH)
    ]


def _deliveries() -> list[Delivery]:
    body = envelope.encode(list(traffic.arrivals(BATCH, "costs", RECEIVED_AT)))
    return [Delivery(1, envelope.CONTENT_TYPE, body, redelivered=False, batch_id="batch")]


def _window(loop: asyncio.AbstractEventLoop) -> Step:
    store, window = _KnownResults(_results()), _deliveries()
    return Step(lambda: loop.run_until_complete(process_window(store, window)), BATCH)


class _NoServer(Store):
    """A store whose scripts find every postback new and no event due."""

    async def _call(self, calls: Sequence[tuple[object, ...]]) -> list[object]:
        return [[b"n", []] for _ in calls]


def _redis_calls(loop: asyncio.AbstractEventLoop) -> Step:
    store, window = _NoServer(Settings()), [received(number) for number in range(BATCH)]
    return Step(lambda: loop.run_until_complete(store.merge(window)), BATCH)


class _Broker:
    """A session that confirms everything."""

    async def publish_all(self, messages: Sequence[Message], _limit: float) -> list[Result]:
        return [None for _ in messages]


def _outbox(loop: asyncio.AbstractEventLoop) -> Outbox:
    """The events of two windows."""
    store = _KnownResults(_results())
    outbox = loop.run_until_complete(process_window(store, _deliveries()))
    return outbox._replace(events=[*outbox.events, *outbox.events])


def _messages(loop: asyncio.AbstractEventLoop) -> Step:
    session, outbox = cast("Session", _Broker()), _outbox(loop)
    return Step(lambda: loop.run_until_complete(publish_outbox(session, outbox)), BATCH)


class _Confirming:
    """The end of a channel that confirms each message when its frames are written."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.number = 1
        self.delivery_tag = 0
        self.max_content_size = 131_064
        self.confirmations: dict[int, asyncio.Future[object]] = {}
        self.message_id_delivery_tag: dict[str, int] = {}
        self.lock = asyncio.Lock()
        self.write_queue = self
        self.create_future = loop.create_future

    async def put(self, _frames: ChannelFrame) -> None:
        for confirm in self.confirmations.values():
            confirm.set_result(None)
        self.confirmations.clear()


def _frames(loop: asyncio.AbstractEventLoop) -> Step:
    channel = cast("aiormq.Channel", _Confirming(loop))
    body = b"e" * 850

    async def call() -> None:
        messages = [
            Message(
                body,
                "mms.events",
                "message.delivered.31003",
                Basic.Properties(
                    content_type=CONTENT_TYPE,
                    message_id=str(number),
                    message_type="mms.message.delivered",
                    correlation_id="batch",
                ),
            )
            for number in range(BATCH)
        ]
        await confirms.publish(channel, messages)

    return Step(lambda: loop.run_until_complete(call()), BATCH)
