"""From POST to state and event, on a real RabbitMQ and a real Redis."""

import asyncio
import json
import random
from collections.abc import Sequence

import aio_pika
import msgspec
import pytest

from shared.postback import envelope
from shared.postback.codes import Track
from shared.postback.envelope import Arrival
from shared.postback.event import decode_event
from shared.postback.normalise import decode
from shared.postback.postback import Key
from shared.postback.record import Record
from shared.postback.stored import format_1
from shared.rabbitmq.session import open_session
from shared.rabbitmq.topology import EVENT_LOG, EVENTS, STATE_QUEUE
from shared.settings.settings import Settings
from shared.settings.units import Seconds
from tests.support import running
from workers.consumer import Consumer, Delivery
from workers.pipeline import process_window
from workers.store import Store
from workers.verdicts import Received

TRACKING_ID = "T-1"
MESSAGE = Key("message", "default", TRACKING_ID)


def postback(code: str, status: str | None = None, **fields: str) -> bytes:
    names = {name.replace("_", "-"): value for name, value in fields.items()}
    content = {"origin": "MMS_MT", "code": code, "tracking-id": TRACKING_ID} | names
    if status is not None:
        content["status"] = status
    return json.dumps(content).encode()


async def stored(settings: Settings, key: Key, version: int) -> Record:
    """The record once it has this version."""
    store = Store(settings)
    try:

        async def reached() -> Record | None:
            record = await store.record(key)
            return record if record is not None and len(record.entries) >= version else None

        record = await running.until(reached)
        assert record is not None
        return record
    finally:
        await store.aclose()


SENT = postback("N101", "Sent", timestamp="2026-11-24T10:00:00Z")
DELIVERED = postback("N102", "Delivered", timestamp="2026-11-24T10:00:09Z", operator_id="31003")
EXPIRED = postback("N102", "Message Sent/Expired", timestamp="2026-11-24T11:00:00Z")

LIFECYCLES = {
    "delivered": ([SENT, DELIVERED], {"message": "delivered"}, ["mms.message.delivered"]),
    "receipt first": ([DELIVERED, SENT], {"message": "delivered"}, ["mms.message.delivered"]),
    "no receipt at all": ([SENT], {"message": "sent"}, []),
    "accepted, then sent": ([postback("N013"), SENT], {"message": "sent"}, []),
    "expired": ([SENT, EXPIRED], {"message": "expired"}, ["mms.message.expired"]),
    "expired by its code": ([postback("N103")], {"message": "expired"}, ["mms.message.expired"]),
    "rejected": ([postback("E102", "Rejected")], {"message": "rejected"}, ["mms.message.rejected"]),
    "failed before sending": ([postback("E101")], {"message": "failed"}, ["mms.message.failed"]),
    "not supported": (
        [SENT, postback("N102", "Message Sent/NotSupported")],
        {"message": "unsupported"},
        ["mms.message.unsupported"],
    ),
    "as fallback SMS": (
        [SENT, postback("N202", "Delivered", sent_as="SMS")],
        {"message": "delivered"},
        ["mms.message.delivered"],
    ),
    "expired, then delivered after all": (
        [EXPIRED, DELIVERED],
        {"message": "delivered"},
        ["mms.message.expired", "mms.message.delivered"],
    ),
    "then expired": ([DELIVERED, EXPIRED], {"message": "delivered"}, ["mms.message.delivered"]),
    "discovery first, under the same tracking-id": (
        [postback("N501"), postback("E502", "Failed"), SENT],
        {"discovery": "failed", "message": "sent"},
        ["mms.discovery.failed"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("bodies", "outcomes", "types"), LIFECYCLES.values(), ids=LIFECYCLES)
async def test_a_lifecycle_from_post_to_state_and_events(
    settings: Settings, bodies: list[bytes], outcomes: dict[str, str], types: list[str]
) -> None:
    async with (
        running.ingest(settings),
        running.worker(running.beside(settings)),
        running.subscriber(settings) as subscriber,
    ):
        events = []
        for at, body in enumerate(bodies):
            await running.post(settings, body)
            record = await stored(settings, MESSAGE, version=at + 1)
        events = await subscriber.events(len(types))
        assert await subscriber.silent()
    assert {str(track): str(record.known(track).outcome) for track in record.tracks()} == outcomes
    assert [event.type for event in events] == types
    assert [event.sequence for event in events] == sorted(event.sequence for event in events)


async def test_a_template(settings: Settings) -> None:
    ready = json.dumps({"origin": "MMS_MT", "code": "N003", "audio-name": "35674"}).encode()
    async with (
        running.ingest(settings),
        running.worker(running.beside(settings)),
        running.subscriber(settings, "template.#") as subscriber,
    ):
        await running.post(settings, ready)
        event = await subscriber.event()
    assert (event.type, event.subject, event.data.mms_id) == (
        "mms.template.ready",
        "35674",
        "35674",
    )
    await stored(settings, Key("template", "default", "35674"), version=1)


async def test_an_event_has_all_that_is_known(settings: Settings) -> None:
    async with (
        running.ingest(settings),
        running.worker(running.beside(settings)),
        running.subscriber(settings, "message.delivered.31003") as subscriber,
    ):
        await running.post(settings, EXPIRED, SENT)
        await stored(settings, MESSAGE, version=2)
        await running.post(settings, DELIVERED)
        event = await subscriber.event()
        record = await stored(settings, MESSAGE, version=3)
    assert event.source == "/mms-postbacks/default"
    assert event.subject == TRACKING_ID
    assert event.time == "2026-11-24T10:00:09Z"
    assert event.data.sent_at == "2026-11-24T10:00:00Z"
    assert event.data.completed_at == "2026-11-24T10:00:09Z"
    assert event.data.corrects == "expired"
    assert event.sequence == str(record.of(Track.MESSAGE)[0].rank)


async def test_two_workers_on_shuffled_and_duplicated_traffic(settings: Settings) -> None:
    dice = random.Random(3)
    arrivals = [
        Arrival(time * 10 + at, "default", "", postback(code, status, tracking_id=f"S-{number}"))
        for time in range(2)
        for number in range(200)
        for at, (code, status) in enumerate(
            [("N013", None), ("N101", "Sent"), ("N102", "Expired"), ("N102", "Delivered")]
        )
    ]
    dice.shuffle(arrivals)
    async with (
        running.worker(settings),
        running.worker(running.beside(settings)),
        running.subscriber(settings, "message.delivered.#") as subscriber,
    ):
        session = await open_session(settings, name="test")
        try:
            for start in range(0, len(arrivals), 10):
                await _publish(settings, arrivals[start : start + 10])
        finally:
            await session.close()
        for number in range(200):
            key = Key("message", "default", f"S-{number}")
            record = await stored(settings, key, version=4)
            assert len(record.entries) == 4
            assert record.known(Track.MESSAGE).outcome == "delivered"
            assert {entry.received_at for entry in record.entries} == {0, 1, 2, 3}
        events = await subscriber.events(200)
        assert await subscriber.silent()
    assert {event.subject for event in events} == {f"S-{number}" for number in range(200)}


async def test_a_bad_postback_among_good_ones(settings: Settings) -> None:
    good = postback("N102", "Delivered", tracking_id="good")
    bad = {
        "malformed": b"junk \xff",
        "invalid": b'{"code": "N102"}',
        "unknown-code": b'{"origin": "MMS_MT", "code": "N999", "tracking-id": "x"}',
        "no-key": b'{"origin": "MMS_MT", "code": "N102"}',
        "too-long": postback("N102", client_reference="r" * 65),
    }
    batch = [Arrival(7, "default", "text/odd", body) for body in [*bad.values(), good]]
    async with running.worker(settings):
        await _publish(settings, batch)
        await stored(settings, Key("message", "default", "good"), version=1)
        dead_letters = await running.dead_letters(settings, len(bad))
    assert {each.reason: each.body for each in dead_letters} == bad
    for each in dead_letters:
        assert each.source == "default"
        assert each.received_at == 7
        assert each.error
        assert each.content_type == "text/odd"


async def test_a_message_that_is_no_batch_is_a_dead_letter(settings: Settings) -> None:
    async with running.worker(settings), running.channel(settings) as channel:
        await channel.default_exchange.publish(aio_pika.Message(b"\xc1 no msgpack"), STATE_QUEUE)
        (dead_letter,) = await running.dead_letters(settings, 1)
    assert dead_letter.reason == "malformed"
    assert dead_letter.body == b"\xc1 no msgpack"


async def test_the_next_worker_publishes_the_events_of_a_worker_that_died_after_the_merge(
    settings: Settings,
) -> None:
    """The state is written and no event is published: the redelivery is the outbox."""
    store = Store(settings)
    session = await open_session(settings, name="dies", prefetch=10)
    await _publish(settings, [Arrival(1, "default", "", DELIVERED)])
    consumer = Consumer(session)
    await consumer.start()
    outbox = await process_window(store, await consumer.window())
    await store.aclose()
    await session.close()
    async with running.subscriber(settings) as subscriber, running.worker(settings):
        event = await subscriber.event()
        assert await subscriber.silent()
    assert [event.id] == [each.id for each in outbox.events]


async def test_a_redelivered_batch_publishes_the_same_event_again(
    settings: Settings,
) -> None:
    session = await open_session(settings, name="holds it back", prefetch=1)
    consumer = Consumer(session)
    await consumer.start()
    await _publish(settings, [Arrival(1, "default", "", DELIVERED)])
    await consumer.window()
    async with running.subscriber(settings) as subscriber, running.worker(settings):
        await _publish(settings, [Arrival(2, "default", "", DELIVERED)])
        first = await subscriber.event()
        assert await subscriber.silent()
        await session.close()
        again = await subscriber.event()
        assert await subscriber.silent()
    assert first.id == again.id
    record = await stored(settings, MESSAGE, version=1)
    assert len(record.entries) == 1


async def test_a_postback_that_a_rebuild_merged_before_the_worker_has_its_event(
    settings: Settings,
) -> None:
    """A rebuild publishes nothing. With a backlog, the worker must still publish the events."""
    session = await open_session(settings, name="test")
    arrival = Arrival(1, "default", "", DELIVERED)
    await _publish(settings, [arrival])
    store = Store(settings)
    await store.merge([Received(arrival, decode("default", DELIVERED), redelivered=False)])
    await store.aclose()
    await session.close()
    async with running.subscriber(settings) as subscriber, running.worker(settings):
        assert (await subscriber.event()).subject == TRACKING_ID


async def test_a_plain_duplicate_publishes_nothing(settings: Settings) -> None:
    async with running.worker(settings), running.subscriber(settings) as subscriber:
        for received_at in (1, 2, 3):
            await _publish(settings, [Arrival(received_at, "default", "", DELIVERED)])
        await subscriber.event()
        assert await subscriber.silent(0.6)


async def test_a_subscriber_that_refuses_events_does_not_stop_the_worker(
    settings: Settings,
) -> None:
    """The other subscriber and the log have the event, and the worker goes on."""
    async with running.worker(settings), running.channel(settings) as channel:
        full = await channel.declare_queue(
            exclusive=True, arguments={"x-max-length": 0, "x-overflow": "reject-publish"}
        )
        await full.bind(EVENTS, "#")
        async with running.subscriber(settings) as subscriber:
            for number in range(3):
                body = postback("N102", "Delivered", tracking_id=f"F-{number}")
                await _publish(settings, [Arrival(number, "default", "", body)])
                assert (await subscriber.event()).subject == f"F-{number}"
        await _logged(settings, {"F-0", "F-1", "F-2"})


async def test_a_client_reference_finds_the_tracking_ids(settings: Settings) -> None:
    store = Store(settings)
    async with running.worker(settings):
        for number in range(3):
            body = postback("N101", tracking_id=f"R-{number}", client_reference="order/7")
            await _publish(settings, [Arrival(number, "default", "", body)])
            await stored(settings, Key("message", "default", f"R-{number}"), version=1)
    assert await store.tracking_ids("default", "order/7") == ["R-2", "R-1", "R-0"]
    await store.aclose()


async def test_a_record_expires_after_its_last_change(settings: Settings) -> None:
    short = msgspec.structs.replace(settings, state_ttl=Seconds(1))
    store = Store(short)
    normalised = decode("default", DELIVERED)
    await store.merge(
        [Received(Arrival(1, "default", "", DELIVERED), normalised, redelivered=False)]
    )
    assert await store.record(MESSAGE) is not None

    async def gone() -> bool:
        return await store.record(MESSAGE) is None

    assert await running.until(gone, within=5)
    await store.aclose()


async def _publish(settings: Settings, batch: Sequence[Arrival]) -> None:
    async with running.channel(settings) as channel:
        exchange = await channel.get_exchange("mms.postbacks", ensure=False)
        await exchange.publish(aio_pika.Message(envelope.encode(batch)), "")


async def _logged(settings: Settings, subjects: set[str]) -> None:
    """Return when the event log has an event for each of these subjects."""
    missing = set(subjects)
    done = asyncio.Event()

    async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        missing.discard(decode_event(message.body).subject)
        if not missing:
            done.set()

    async with running.channel(settings) as channel:
        await channel.set_qos(prefetch_count=100)
        queue = await channel.get_queue(EVENT_LOG)
        await queue.consume(take, arguments={"x-stream-offset": "first"})
        await asyncio.wait_for(done.wait(), running.TIME_LIMIT)


async def test_a_failure_below_a_wrong_delivery_of_release_0_1_0_has_its_event(
    settings: Settings,
) -> None:
    """That release ranked every unknown status text as a delivery."""
    deferred = decode("default", postback("N102", "Deferred", timestamp="2026-11-24T10:00:00Z"))
    name, value = format_1(1, deferred)
    expired = decode("default", EXPIRED)
    store = Store(settings)
    try:
        await store._redis.hset(  # noqa: SLF001 (as that release wrote it)
            MESSAGE.redis, b"m4" + name[2:], value
        )
        batch = envelope.encode([Arrival(1, "default", "", EXPIRED)])
        outbox = await process_window(store, [Delivery(1, "", batch, redelivered=False)])
    finally:
        await store.aclose()
    assert [each.sequence for each in outbox.events] == [str(expired.rank)]
    assert outbox.events[0].type == "mms.message.expired"
