"""A window's way through the worker, with the model instead of Redis."""

from random import Random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import OtherOriginError, UndecodableError
from shared.postback import envelope
from shared.postback.envelope import Arrival
from shared.postback.normalise import decode
from tests.support.contract import CODES
from tests.support.model_store import ModelStore
from tests.support.strategies import DIALECTS
from workers.consumer import Delivery
from workers.pipeline import process_window
from workers.verdicts import Received

NO_BATCHES = [b"", b"\xc1", b"{}"]


def _later(delivery: Delivery) -> Delivery:
    """The same postbacks, POSTed again at another time."""
    try:
        batch = envelope.decode(delivery.body)
    except msgspec.DecodeError:
        return delivery
    again = [msgspec.structs.replace(each, received_at=each.received_at + 10**12) for each in batch]
    return delivery._replace(body=envelope.encode(again), redelivered=False)


_bodies = st.builds(
    lambda fields, render: render({"origin": "MMS_MT"} | fields),
    st.fixed_dictionaries(
        {
            "code": st.sampled_from([*CODES, "X999"]),
            "tracking-id": st.sampled_from(["T1", "T2"]),
            "mms-id": st.just("M1"),
        },
        optional={"handset": st.sampled_from(["Nokia", "x" * 2000])},
    ),
    st.sampled_from(list(DIALECTS.values())),
) | st.sampled_from([b"", b"{}", b"<postback>", b'{"origin":"SMS_MO","code":"N101"}', b"\xff"])
_arrivals = st.builds(
    Arrival, st.integers(1, 9), st.sampled_from(["acme", "other"]), st.just(""), _bodies
)
_deliveries = st.builds(
    Delivery,
    st.integers(0, 99),
    st.just(envelope.CONTENT_TYPE),
    st.lists(_arrivals, max_size=6).map(envelope.encode) | st.sampled_from(NO_BATCHES),
    st.booleans(),
)


def result(arrival: Arrival) -> str:
    try:
        decode(arrival.source, arrival.body)
    except OtherOriginError:
        return "passed on"
    except UndecodableError:
        return "dead"
    return "merged"


def arrivals_of(delivery: Delivery) -> list[Arrival]:
    if delivery.body in NO_BATCHES:
        return []
    return envelope.decode(delivery.body)


@given(st.lists(_deliveries, max_size=5))
async def test_every_postback_ends_in_the_state_or_in_the_dead_letters_or_in_an_event(
    window: list[Delivery],
) -> None:
    store = ModelStore()
    outbox = await process_window(store, window)
    arrivals = [arrival for delivery in window for arrival in arrivals_of(delivery)]
    assert store.received == [arrival for arrival in arrivals if result(arrival) == "merged"]
    passed = [arrival for arrival in arrivals if result(arrival) == "passed on"]
    assert len(outbox.passthrough) == len(passed)
    assert outbox.postbacks == len(store.received) + len(outbox.dead_letters) + len(passed)
    from_batches = [each for each in outbox.dead_letters if each.source]
    assert [(each.received_at, each.source, each.body) for each in from_batches] == [
        (arrival.received_at, arrival.source, arrival.body)
        for arrival in arrivals
        if result(arrival) == "dead"
    ]
    whole = [each.body for each in outbox.dead_letters if not each.source]
    assert whole == [delivery.body for delivery in window if delivery.body in NO_BATCHES]
    assert all(each.error for each in outbox.dead_letters)


@given(st.lists(_deliveries, max_size=5), st.randoms(use_true_random=False))
async def test_windows_in_any_order_and_again_give_the_same_state(
    deliveries: list[Delivery], random: Random
) -> None:
    once, again = ModelStore(), ModelStore()
    await process_window(once, deliveries)
    repeated = deliveries * 2
    random.shuffle(repeated)
    for delivery in repeated:
        await process_window(again, [delivery])
    assert {key: model.record() for key, model in once.models.items()} == {
        key: model.record() for key, model in again.models.items()
    }


@given(st.lists(_deliveries, max_size=5))
async def test_a_batch_that_comes_again_publishes_the_same_events_only_if_it_is_redelivered(
    deliveries: list[Delivery],
) -> None:
    store = ModelStore()
    first = await process_window(store, [each._replace(redelivered=False) for each in deliveries])
    plain = await process_window(store, [_later(each) for each in deliveries])
    redelivered = await process_window(
        store, [each._replace(redelivered=True) for each in deliveries]
    )
    assert plain.events == []
    assert redelivered.events == first.events
    assert redelivered.passthrough == first.passthrough
    assert [each.id for each in plain.passthrough] == [each.id for each in first.passthrough]
    assert [each.body for each in plain.dead_letters] == [each.body for each in first.dead_letters]


@given(st.lists(_deliveries, min_size=1, max_size=6), st.integers(0, 5))
async def test_events_that_a_dead_worker_did_not_publish_are_published_after_redelivery(
    deliveries: list[Delivery], died_with: int
) -> None:
    store = ModelStore()
    published = {}
    lost = deliveries[died_with % len(deliveries)]
    await process_window(store, [lost])  # merged; the worker dies before it publishes
    for each in [*deliveries, lost._replace(redelivered=True)]:
        if each is not lost:
            for event in (await process_window(store, [each])).events:
                track = event.type.split(".")[1]
                published[event.source, event.subject, track] = event.data.outcome
    expected = {
        (f"/mms-postbacks/{key.source}", key.id, str(track)): model.record().known(track).outcome
        for key, model in store.models.items()
        for track in model.record().tracks()
        if model.record().of(track)[0].rank.terminal
    }
    assert published == expected


async def test_a_plain_duplicate_publishes_nothing_beside_a_new_postback() -> None:
    store = ModelStore()
    found, delivered = (
        Delivery(
            1,
            envelope.CONTENT_TYPE,
            envelope.encode([Arrival(1, "acme", "", body)]),
            redelivered=False,
        )
        for body in (
            b'{"origin":"MMS_MT","code":"N502","tracking-id":"T1"}',
            b'{"origin":"MMS_MT","code":"N102","tracking-id":"T1"}',
        )
    )
    await process_window(store, [found])
    outbox = await process_window(store, [_later(found), delivered])
    assert [event.type for event in outbox.events] == ["mms.message.delivered"]


async def test_a_postback_that_a_rebuild_merged_before_its_worker_has_its_event() -> None:
    """A rebuild publishes nothing. The postback's own batch, which is still queued, has to."""
    store = ModelStore()
    body = b'{"origin":"MMS_MT","code":"N102","tracking-id":"T1"}'
    arrival = Arrival(7, "acme", "", body)
    await store.merge([Received(arrival, decode("acme", body), redelivered=False)])
    delivery = Delivery(1, envelope.CONTENT_TYPE, envelope.encode([arrival]), redelivered=False)
    assert [event.type for event in (await process_window(store, [delivery])).events] == [
        "mms.message.delivered"
    ]
    assert not (await process_window(store, [_later(delivery)])).events


async def test_an_unknown_status_text_is_reported_with_its_code() -> None:
    bodies = [
        b'{"origin":"MMS_MT","code":"N102","tracking-id":"T1","status":"Held"}',
        b'{"origin":"MMS_MT","code":"N102","tracking-id":"T1","status":"Deferred"}',
        b'{"origin":"MMS_MT","code":"E101","tracking-id":"T1","status":"Held"}',
    ]
    batch = envelope.encode([Arrival(1, "acme", "", body) for body in bodies])
    outbox = await process_window(
        ModelStore(), [Delivery(1, envelope.CONTENT_TYPE, batch, redelivered=False)]
    )
    assert outbox.unknown_statuses == [("N102", "Held")]
