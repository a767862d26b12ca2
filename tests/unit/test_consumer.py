"""Windows are bounded, and exactly the processed batches are acknowledged, in any order."""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import cast

from aiormq.abc import DeliveredMessage
from hypothesis import given
from hypothesis import strategies as st

from shared.postback import envelope
from shared.postback.envelope import Arrival
from shared.rabbitmq.session import Session
from workers.consumer import WINDOW_BYTES, WINDOW_POSTBACKS, Consumer, Delivery


class Broker:
    """RabbitMQ's side of a channel: which deliveries are unacknowledged."""

    def __init__(self, deliveries: int) -> None:
        self.open = set(range(1, deliveries + 1))
        self.frames = 0
        self.deliver: Callable[[DeliveredMessage], Awaitable[None]]

    async def basic_consume(
        self, _queue: str, take: Callable[[DeliveredMessage], Awaitable[None]]
    ) -> SimpleNamespace:
        self.deliver = take
        return SimpleNamespace(consumer_tag="ours")

    async def basic_ack(self, tag: int, *, multiple: bool = False, wait: bool) -> None:
        assert tag in self.open, "PRECONDITION_FAILED - unknown delivery tag"
        assert not wait
        self.open -= {each for each in self.open if each < tag and multiple} | {tag}
        self.frames += 1


def session(broker: Broker) -> Session:
    return cast("Session", SimpleNamespace(channel=broker))


def consumer(broker: Broker) -> Consumer:
    return Consumer(session(broker))


def window(*tags: int) -> list[Delivery]:
    return [Delivery(tag, "", b"", redelivered=False) for tag in tags]


@given(st.integers(1, 30).flatmap(lambda n: st.permutations(range(1, n + 1))), st.data())
async def test_exactly_the_batches_of_a_window_are_acknowledged(
    tags: list[int], data: st.DataObject
) -> None:
    broker = Broker(len(tags))
    ours = consumer(broker)
    while tags:
        size = data.draw(st.integers(1, len(tags)))
        done, tags = tags[:size], tags[size:]
        await ours.acknowledge(window(*done))
        assert broker.open == set(tags)


async def test_a_cancellation_lost_while_a_window_is_processed_ends_the_loop() -> None:
    """`wait_for` of Python 3.11, which redis-py uses, may lose it."""
    ours = consumer(Broker(0))

    async def process_windows() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await ours.window()

    handling = asyncio.create_task(process_windows())
    await asyncio.sleep(0)
    handling.cancel()
    await asyncio.wait([handling], timeout=5)
    assert handling.cancelled()


async def test_a_window_in_order_is_one_frame() -> None:
    broker = Broker(9)
    ours = consumer(broker)
    await ours.acknowledge(window(1, 2, 3))
    await ours.acknowledge(window(6))  # redelivered: the others wait
    assert broker.frames == 2
    await ours.acknowledge(window(4, 5))
    await ours.acknowledge(window(7, 8, 9))
    assert broker.frames == 4
    assert not broker.open


@given(st.lists(st.tuples(st.integers(0, WINDOW_BYTES), st.booleans()), max_size=30))
async def test_windows_are_bounded_and_hold_everything_once(sizes: list[tuple[int, bool]]) -> None:
    broker = Broker(len(sizes))
    ours = consumer(broker)
    await ours.start()
    for tag, (size, redelivered) in enumerate(sizes, 1):
        await broker.deliver(delivered(tag, bytes(size), redelivered=redelivered))
    windows: list[Sequence[Delivery]] = []
    while sum(map(len, windows)) < len(sizes):
        windows.append(await ours.window())
    fresh = [each for each in windows if not each[0].redelivered]
    for each in windows:
        assert len(each) == 1 or sum(len(one.body) for one in each) <= WINDOW_BYTES
        assert len(each) == 1 or each in fresh
    for each, after in itertools.pairwise(fresh):  # none is smaller than it must be
        assert sum(len(one.body) for one in (*each, after[0])) > WINDOW_BYTES
    tags = [one.tag for each in fresh for one in each]
    assert tags == [tag for tag, (_, redelivered) in enumerate(sizes, 1) if not redelivered]
    assert sorted(one.tag for each in windows for one in each) == [*range(1, len(sizes) + 1)]


def delivered(tag: int, body: bytes, *, redelivered: bool) -> DeliveredMessage:
    properties = SimpleNamespace(content_type=None, message_id=None)
    header = SimpleNamespace(properties=properties)
    known = {"delivery_tag": tag, "redelivered": redelivered, "header": header, "body": body}
    return cast("DeliveredMessage", SimpleNamespace(**known))


@given(st.lists(st.integers(1, envelope.MAX_POSTBACKS), max_size=30))
async def test_windows_of_tiny_postbacks_are_bounded(counts: list[int]) -> None:
    """Each costs as much memory and work as a large one."""
    broker = Broker(len(counts))
    ours = consumer(broker)
    await ours.start()
    for tag, count in enumerate(counts, 1):
        body = envelope.encode([Arrival(1, "default", "", b"x")] * count)
        await broker.deliver(delivered(tag, body, redelivered=False))
    windows: list[list[int]] = []
    while sum(map(len, windows)) < len(counts):
        windows.append([counts[each.tag - 1] for each in await ours.window()])
    assert list(itertools.chain(*windows)) == counts
    for each in windows:
        assert len(each) == 1 or sum(each) <= WINDOW_POSTBACKS
    for each, after in itertools.pairwise(windows):  # none is smaller than it must be
        assert sum(each) + after[0] > WINDOW_POSTBACKS
