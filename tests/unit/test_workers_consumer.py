"""What is acknowledged is what was done with, whatever order it was done in."""

from types import SimpleNamespace
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from shared.broker import Session
from workers.consumer import Consumer, Delivery


class Broker:
    """RabbitMQ's side of a channel: which deliveries are open."""

    def __init__(self, deliveries: int) -> None:
        self.open = set(range(1, deliveries + 1))
        self.frames = 0

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
async def test_nothing_else_is_acknowledged(tags: list[int], data: st.DataObject) -> None:
    broker = Broker(len(tags))
    ours = consumer(broker)
    while tags:
        size = data.draw(st.integers(1, len(tags)))
        done, tags = tags[:size], tags[size:]
        await ours.acknowledge(window(*done))
        assert broker.open == set(tags)


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
