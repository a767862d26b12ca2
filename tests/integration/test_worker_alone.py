"""What goes wrong with one postback, event or dead letter concerns that one alone."""

import json
from collections.abc import Callable
from types import ModuleType

import msgspec
import pytest
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from deploy.local.servers import RabbitMQ
from shared.postback import envelope
from shared.postback.codes import Outcome, Track
from shared.postback.dead_letter import DeadLetter, Reason, decode_dead_letter
from shared.postback.envelope import Arrival
from shared.postback.event import Event
from shared.postback.postback import Key
from shared.rabbitmq import topology
from shared.rabbitmq.session import Session
from shared.settings.settings import Settings
from tests.support.admin import opened
from workers import decode, merge
from workers.consumer import Delivery
from workers.outbox import Outbox
from workers.pipeline import process_window
from workers.publish import publish_outbox
from workers.store import Store
from workers.verdicts import Received

GOOD = range(20)
BAD = "T-bad"
SUBSCRIBER = "test-subscriber"


def arrival(tracking_id: str, content_type: str = "application/json", **fields: str) -> Arrival:
    content = {
        "origin": "MMS_MT",
        "code": "N102",
        "status": "Delivered",
        "tracking-id": tracking_id,
        "operator-id": "31003",
    }
    return Arrival(1, "default", content_type, json.dumps(content | fields).encode())


def window(bad: Arrival) -> list[Delivery]:
    """Two batches: good postbacks, and a bad one in the middle of them."""
    good = [arrival(f"T-{number}") for number in GOOD]
    batches = [good[:10], [*good[10:15], bad, *good[15:]]]
    return [
        Delivery(number, envelope.CONTENT_TYPE, envelope.encode(batch), redelivered=False)
        for number, batch in enumerate(batches, start=1)
    ]


async def taken(session: Session, queue: str) -> list[DeliveredMessage]:
    """All messages of a queue."""
    messages = []
    while (message := await session.channel.basic_get(queue)).delivery_tag:
        messages.append(message)
        await session.channel.basic_ack(message.delivery_tag)
    return messages


async def subscribed(session: Session) -> None:
    """Make a queue that gets all events."""
    await session.channel.queue_declare(SUBSCRIBER, durable=True)
    await session.channel.queue_bind(SUBSCRIBER, topology.EVENTS, "#")


async def dead_letters(session: Session) -> list[DeadLetter]:
    """All dead letters."""
    return [
        decode_dead_letter(message.body, message.header.properties)
        for message in await taken(session, topology.DEAD)
    ]


async def process(settings: Settings, bad: Arrival) -> tuple[set[str], list[DeadLetter]]:
    """Process a window with a bad postback; the subjects of its events, and its dead letters.

    All good postbacks must be in the state.
    """
    store = Store(settings)
    try:
        async with opened(settings) as session:
            await subscribed(session)
            await publish_outbox(session, await process_window(store, window(bad)))
        async with opened(settings) as session:
            for number in GOOD:
                record = await store.record(Key("message", "default", f"T-{number}"))
                assert record is not None
                assert record.known(Track.MESSAGE).outcome is Outcome.DELIVERED
            subjects = {
                json.loads(each.body)["subject"] for each in await taken(session, SUBSCRIBER)
            }
            await session.channel.queue_delete(SUBSCRIBER)
            return subjects, await dead_letters(session)
    finally:
        await store.aclose()


ALL = {f"T-{number}" for number in GOOD}

HOSTILE = {
    "a content type of 128 two-byte characters": "é" * 128,
    "a content type of 128 four-byte characters": "\U0001f600" * 128,
    "a content type with line breaks": "a\r\nb: c\0",
}


@pytest.mark.parametrize("content_type", HOSTILE.values(), ids=HOSTILE)
async def test_a_dead_letter_with_a_hostile_content_type(
    settings: Settings, content_type: str
) -> None:
    bad = Arrival(1, "default", content_type, b"neither JSON nor XML")
    subjects, (dead_letter,) = await process(settings, bad)
    assert subjects == ALL
    assert dead_letter.body == bad.body
    assert (dead_letter.reason, dead_letter.source) == ("malformed", "default")  # has its headers


async def test_a_dead_letter_whose_texts_are_no_unicode(settings: Settings) -> None:
    """From a header that was no UTF-8, or an error that quotes one."""
    dead_letter = DeadLetter(
        Reason.INVALID, "\ud800" * 600, "\udcff", 1, "\udcff", b"body", "\ud800"
    )
    async with opened(settings) as session:
        await publish_outbox(session, Outbox([], [dead_letter]))
        (found,) = await dead_letters(session)
    assert found == dead_letter
    assert (found.reason, found.error, found.body) == ("invalid", "?" * 512, b"body")


async def test_a_dead_letter_that_rabbitmq_closes_the_channel_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found among its neighbours, and keeps its body and its reason."""
    usual = DeadLetter.properties

    def spoiled(dead_letter: DeadLetter) -> Basic.Properties:
        properties = usual(dead_letter)
        if dead_letter.body == b"bad":
            properties.expiration = "no number"  # PRECONDITION_FAILED
        return properties

    monkeypatch.setattr(DeadLetter, "properties", spoiled)
    bodies = [b"%d" % number for number in range(9)]
    sent = [
        DeadLetter(Reason.MALFORMED, "a test", "default", 1, "", body)
        for body in [*bodies[:6], b"bad", *bodies[6:]]
    ]
    async with opened(settings) as session:
        await publish_outbox(session, Outbox([], sent))
        assert session.open  # on a channel in place of those that were closed
        found = await dead_letters(session)
    assert {each.body for each in found} == {*bodies, b"bad"}
    (bad,) = [each for each in found if each.body == b"bad"]
    assert (bad.reason, bad.error) == ("malformed", "")


async def test_an_event_that_cannot_be_encoded(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = Event.encode

    def encode(event: Event) -> bytes:
        if event.subject == BAD:
            raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")
        return usual(event)

    monkeypatch.setattr(Event, "encode", encode)
    bad = arrival(BAD)
    subjects, (dead_letter,) = await process(settings, bad)
    assert subjects == ALL
    assert dead_letter.body == bad.body
    assert dead_letter.reason == "undeliverable"


async def test_an_event_larger_than_rabbitmq_takes(
    settings: Settings, fresh_rabbit: Callable[..., RabbitMQ]
) -> None:
    rabbit = fresh_rabbit(config=["max_message_size = 1100"])
    bad = arrival("T" * 250)  # an event has it twice
    subjects, (dead_letter,) = await process(
        msgspec.structs.replace(settings, amqp_url=rabbit.url), bad
    )
    assert subjects == ALL
    assert dead_letter.body == bad.body


@pytest.mark.parametrize(
    ("module", "step"), [(decode, "decode"), (merge, "due_events")], ids=["decode", "due_events"]
)
async def test_a_postback_that_a_defect_of_ours_fails_on(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, module: ModuleType, step: str
) -> None:
    usual = getattr(module, step)

    def failing(*given: object) -> object:
        if BAD in str(given):
            raise ZeroDivisionError(BAD)
        return usual(*given)

    monkeypatch.setattr(module, step, failing)
    bad = arrival(BAD)
    subjects, (dead_letter,) = await process(settings, bad)
    assert subjects == ALL
    assert dead_letter.body == bad.body
    assert dead_letter.reason == "undeliverable"
    assert "ZeroDivisionError at test_worker_alone.py:" in dead_letter.error


async def test_a_window_whose_script_call_cannot_be_written(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As redis-py refuses an argument that is neither text nor number."""
    usual = Store._merge_call  # noqa: SLF001 (to spoil one call)

    def call(store: Store, key: Key, batch: list[Received]) -> object:
        if key.id == BAD:
            return usual(store, key, batch)._replace(arguments=(None,))  # type: ignore[arg-type]  # the defect
        return usual(store, key, batch)

    monkeypatch.setattr(Store, "_merge_call", call)
    subjects, (dead_letter,) = await process(settings, arrival(BAD))
    assert subjects == ALL
    assert dead_letter.reason == "undeliverable"
