"""Messages published together on a real RabbitMQ: each has a result of its own."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator

import msgspec
import pytest
from aio_pika.abc import AbstractChannel
from pamqp.commands import Basic
from yarl import URL

from deploy.local.servers import RabbitMQ
from shared.errors import PublishOutcomeUnknownError, PublishRejectedError, UnpublishableError
from shared.rabbitmq import confirms
from shared.rabbitmq.message import Message
from shared.rabbitmq.session import Session, open_session
from shared.rabbitmq.topology import STATE_QUEUE
from shared.settings.settings import Settings
from tests.support.proxy import Proxy, proxied

LIMIT = 10.0


@pytest.fixture(autouse=True, params=["tested", "another"])
def aiormq_version(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """aiormq has a version that `confirms` was tested with, or another one."""
    if request.param == "another":
        monkeypatch.setattr(confirms, "TESTED", frozenset({"7.0.0"}))
    confirms.is_tested.cache_clear()
    yield
    confirms.is_tested.cache_clear()


@pytest.fixture
async def session(settings: Settings) -> AsyncIterator[Session]:
    session = await open_session(settings, name="test")
    yield session
    await session.close()


@pytest.fixture
async def proxy(settings: Settings) -> AsyncIterator[Proxy]:
    async with proxied(URL(settings.amqp_url).port or 0) as proxy:
        yield proxy


@pytest.fixture
async def far_session(settings: Settings, proxy: Proxy) -> AsyncIterator[Session]:
    """A session over a network that can fail."""
    url = str(URL(settings.amqp_url).with_port(proxy.port))
    session = await open_session(msgspec.structs.replace(settings, amqp_url=url), name="far")
    yield session
    proxy.heal()
    await session.close()


@pytest.fixture
async def taking(amqp: AbstractChannel) -> str:
    """The name of a queue that takes everything."""
    return (await amqp.declare_queue(exclusive=True)).name


@pytest.fixture
async def full(amqp: AbstractChannel) -> str:
    """The name of a queue that refuses everything."""
    queue = await amqp.declare_queue(
        exclusive=True, arguments={"x-max-length": 0, "x-overflow": "reject-publish"}
    )
    return queue.name


def message(queue: str, body: bytes = b"body", message_id: str | None = None) -> Message:
    return Message(body, "", queue, Basic.Properties(message_id=message_id))


async def bodies(amqp: AbstractChannel, queue: str, count: int) -> list[bytes]:
    there = await amqp.get_queue(queue)
    return [(await there.get(no_ack=True)).body for _ in range(count)]


async def test_each_message_has_its_own_result(
    session: Session, amqp: AbstractChannel, taking: str, full: str
) -> None:
    kinds = [taking, full, "nowhere", taking, "nowhere", full, taking]
    answers = await session.publish_all(
        [message(queue, b"%d" % at) for at, queue in enumerate(kinds)], LIMIT
    )
    refusals = {full: f"a queue of {full} refused it", "nowhere": "there is no queue nowhere"}
    assert [None if answer is None else str(answer) for answer in answers] == [
        refusals.get(queue) for queue in kinds
    ]
    assert all(answer is None or answer.__cause__ for answer in answers)
    assert await bodies(amqp, taking, 3) == [b"0", b"3", b"6"]


@pytest.mark.parametrize(
    "broken",
    [
        Basic.Properties(content_type="é" * 128),  # 256 bytes of an AMQP short string's 255
        Basic.Properties(headers={"x-error": "\ud800"}),
        Basic.Properties(headers={"x-number": 2**70}),
        Basic.Properties(headers={"x-set": {1}}),  # type: ignore[dict-item]  # cannot be encoded
        Basic.Properties(correlation_id=7),  # type: ignore[arg-type]  # cannot be encoded
    ],
    ids=["long", "surrogate", "number", "unknown type", "wrong type"],
)
@pytest.mark.parametrize("alone", [True, False])
async def test_a_message_that_cannot_be_encoded_is_unpublishable_and_affects_no_other(
    session: Session, amqp: AbstractChannel, taking: str, broken: Basic.Properties, *, alone: bool
) -> None:
    bad = Message(b"bad", "", taking, broken)
    key = Message(b"bad", "", "k" * 256, Basic.Properties())
    group = [bad, key] if alone else [message(taking, b"1"), bad, key, message(taking, b"2")]
    answers = await session.publish_all(group, LIMIT)
    assert [type(answer) for answer in answers] == [
        UnpublishableError if each in (bad, key) else type(None) for each in group
    ]
    assert await session.publish_all([message(taking, b"3")], LIMIT) == [None]
    expected = [b"3"] if alone else [b"1", b"2", b"3"]
    assert await bodies(amqp, taking, len(expected)) == expected


async def test_a_defect_of_ours_is_not_taken_for_a_lost_connection(
    session: Session, taking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would be retried for ever."""
    monkeypatch.setattr("shared.rabbitmq.confirms._Results", None)
    monkeypatch.setattr("aiormq.Channel.basic_publish", None)
    with pytest.raises((TypeError, ExceptionGroup), match=r"not callable|unhandled errors"):
        await session.publish_all([message(taking)], LIMIT)


async def test_a_message_too_large_for_rabbitmq_is_never_sent_again(
    settings: Settings, fresh_rabbit: Callable[..., RabbitMQ]
) -> None:
    """RabbitMQ closes the channel. Once its limit is known, larger messages are not sent."""
    rabbit = fresh_rabbit(config=["max_message_size = 5000"])
    settings = msgspec.structs.replace(settings, amqp_url=rabbit.url)
    session = await open_session(settings, name="test")
    small, large = (message(STATE_QUEUE, b"x" * size) for size in (5000, 5001))
    assert session.largest == math.inf
    with pytest.raises(PublishOutcomeUnknownError):  # the result of the small one is unknown
        await session.publish_all([small, large], LIMIT)
    assert session.largest == 5000
    await session.close()
    session = await open_session(settings, name="test")
    none, refused = await session.publish_all([small, large], LIMIT)
    assert none is None
    assert isinstance(refused, UnpublishableError)
    assert session.open
    await session.close()


async def test_a_single_message_too_large_for_rabbitmq_fails_at_once(
    settings: Settings, fresh_rabbit: Callable[..., RabbitMQ]
) -> None:
    rabbit = fresh_rabbit(config=["max_message_size = 5000"])
    session = await open_session(
        msgspec.structs.replace(settings, amqp_url=rabbit.url), name="test"
    )
    with pytest.raises(UnpublishableError, match=r"5001 bytes .* 5000"):
        await session.publish(
            b"x" * 5001, exchange="", routing_key="q", properties=Basic.Properties(), limit=LIMIT
        )
    await session.close()


async def test_no_messages(session: Session) -> None:
    assert await session.publish_all([], LIMIT) == []


async def test_many_messages_of_any_size_from_several_publishers(
    session: Session, amqp: AbstractChannel, taking: str
) -> None:
    largest = session.channel.max_content_size
    sizes = [0, 1, largest - 1, largest, largest + 1, 3 * largest, *range(2, 300)]
    async with asyncio.TaskGroup() as publishers:
        for at in range(4):
            group = [message(taking, b"%d" % at * size) for size in sizes]
            publishers.create_task(session.publish_all(group, LIMIT))
    there = await bodies(amqp, taking, 4 * len(sizes))
    assert sorted(map(len, there)) == sorted(sizes * 4)
    for at in range(4):
        assert [len(body) for body in there if body[:1] == b"%d" % at] == sizes[1:]


async def test_messages_are_persistent_and_have_an_id(
    session: Session, amqp: AbstractChannel, taking: str
) -> None:
    assert await session.publish_all([message(taking, message_id="mine"), message(taking)], LIMIT)
    queue = await amqp.get_queue(taking)
    mine, another = await queue.get(no_ack=True), await queue.get(no_ack=True)
    assert mine.message_id == "mine"
    assert another.message_id
    assert mine.delivery_mode == another.delivery_mode == 2


async def test_a_single_message_is_published_or_the_error_says_why_not(
    session: Session, taking: str, full: str
) -> None:
    async def publish(queue: str) -> None:
        await session.publish(
            b"body", exchange="", routing_key=queue, properties=Basic.Properties(), limit=LIMIT
        )

    await publish(taking)
    with pytest.raises(PublishRejectedError, match="refused"):
        await publish(full)
    with pytest.raises(PublishRejectedError, match="no queue"):
        await publish("nowhere")


async def test_no_confirm_in_time(
    far_session: Session, proxy: Proxy, amqp: AbstractChannel, taking: str, full: str
) -> None:
    """The result is unknown, they may arrive later, and the count of confirms stays right."""
    proxy.stall()
    with pytest.raises(PublishOutcomeUnknownError, match="within"):
        await far_session.publish_all([message(taking), message(full)], 0.2)
    proxy.heal()
    answers = await far_session.publish_all(
        [message(taking), message("nowhere"), message(full)], LIMIT
    )
    assert [answer is None for answer in answers] == [True, False, False]
    assert len(await bodies(amqp, taking, 2)) == 2
    assert not far_session.channel.confirmations
    assert not far_session.channel.message_id_delivery_tag


async def test_a_time_limit_before_the_message_is_sent(
    session: Session, taking: str, full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RabbitMQ does not count a message that it never received."""

    async def stuck(_: object) -> None:
        await asyncio.sleep(LIMIT)

    with monkeypatch.context() as patch:
        patch.setattr(session.channel.write_queue, "put", stuck)
        with pytest.raises(PublishOutcomeUnknownError):
            await session.publish_all([message(taking), message(taking)], 0.05)
    async with session.channel.lock:
        with pytest.raises(PublishOutcomeUnknownError):
            await session.publish_all([message(taking)], 0.05)
    answers = await session.publish_all([message(taking), message(full), message(taking)], LIMIT)
    assert [answer is None for answer in answers] == [True, False, True]
    assert not session.channel.confirmations


async def test_the_connection_is_lost_before_the_confirm(
    far_session: Session, proxy: Proxy, taking: str
) -> None:
    proxy.stall()
    messages = [message(taking) for _ in range(3)]
    publishing = asyncio.create_task(far_session.publish_all(messages, LIMIT))
    await asyncio.sleep(0.1)
    assert not publishing.done()
    proxy.reset()
    with pytest.raises(PublishOutcomeUnknownError, match="broke"):
        await publishing
    with pytest.raises(PublishOutcomeUnknownError):
        await far_session.publish_all([message(taking)], LIMIT)


async def test_the_session_is_closed_before_the_confirm(
    far_session: Session, proxy: Proxy, taking: str
) -> None:
    proxy.stall()
    messages = [message(taking) for _ in range(3)]
    publishing = asyncio.create_task(far_session.publish_all(messages, LIMIT))
    await asyncio.sleep(0.1)
    await far_session.close()
    with pytest.raises(PublishOutcomeUnknownError):
        await publishing


async def test_a_cancelled_publish_ends(far_session: Session, proxy: Proxy, taking: str) -> None:
    proxy.stall()
    publishing = asyncio.create_task(far_session.publish_all([message(taking)], LIMIT))
    await asyncio.sleep(0.1)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing


async def test_an_exchange_that_does_not_exist(session: Session) -> None:
    """RabbitMQ closes the channel."""
    with pytest.raises(PublishOutcomeUnknownError, match="no exchange"):
        await session.publish_all([Message(b"", "gone", "", Basic.Properties())], LIMIT)
    assert not session.open
