"""The record of a key, as a function of the set of its postbacks."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import UnreadableRecordError
from shared.postback.codes import Track
from shared.postback.normalise import decode
from shared.postback.postback import Key, NormalisedPostback
from shared.postback.record import Record, entry_name, entry_value, read_record, reference_key
from tests.support.model import Model, received
from tests.support.strategies import as_json, normalised_postbacks, postback_fields

AT = 1_795_514_400_000_000  # 2026-11-24T10:00:00Z
BASE = {"origin": "MMS_MT", "tracking-id": "T1"}


def record(*postbacks: dict[str, str]) -> Record:
    """A record of these, received a second apart."""
    merged = [
        received(decode("acme", as_json(BASE | fields)), AT + number * 1_000_000)
        for number, fields in enumerate(postbacks)
    ]
    model = Model(merged[0].normalised.key)
    model.merge(merged)
    return model.record()


def at(hour: int) -> str:
    return f"2026-11-24T{hour:02}:00:00Z"


SENT = {"code": "N101", "timestamp": at(1)}
EXPIRED = {"code": "N103", "timestamp": at(2)}
REJECTED = {"code": "E102", "status": "Rejected", "timestamp": at(3)}
DELIVERED = {"code": "N102", "status": "Message Sent/Delivered", "timestamp": at(2)}


@pytest.mark.parametrize(
    ("postbacks", "outcome", "completed_at", "corrects"),
    [
        ([{"code": "N013"}], "accepted", None, None),
        ([{"code": "N013", "timestamp": at(5)}, SENT], "sent", None, None),
        ([SENT, EXPIRED], "expired", at(2), None),
        ([SENT, EXPIRED, REJECTED], "rejected", at(3), "expired"),
        ([DELIVERED], "delivered", at(2), None),
        ([DELIVERED, SENT], "delivered", at(2), None),
        ([REJECTED, DELIVERED], "delivered", at(2), "rejected"),
        ([EXPIRED, REJECTED, DELIVERED], "delivered", at(2), "rejected"),
        ([{"code": "E101"}], "failed", "2026-11-24T10:00:00Z", None),
        ([SENT, {"code": "E101"}], "failed", "2026-11-24T10:00:01Z", None),
        ([{"code": "E101"}, EXPIRED], "expired", at(2), "failed"),
    ],
)
def test_the_outcome_of_a_message(
    postbacks: list[dict[str, str]], outcome: str, completed_at: str | None, corrects: str | None
) -> None:
    for order in (postbacks, postbacks[::-1]):
        known = record(*order).known(Track.MESSAGE)
        assert (known.outcome, known.corrects) == (outcome, corrects)
    known = record(*postbacks).known(Track.MESSAGE)
    assert known.completed_at == completed_at


def test_discovery_says_nothing_about_the_message() -> None:
    both = record(SENT, {"code": "N502", "status": "Delivered"}, {"code": "N501"})
    assert both.tracks() == [Track.MESSAGE, Track.DISCOVERY]
    assert both.known(Track.MESSAGE).outcome == "sent"
    assert both.known(Track.MESSAGE).completed_at is None
    assert both.known(Track.DISCOVERY).outcome == "delivered"
    assert both.known(Track.DISCOVERY).corrects is None


def test_details_come_from_the_deciding_postback_else_from_the_next_that_has_them() -> None:
    known = record(
        SENT | {"to": "15550100001", "handset": "old", "client-reference": "order-7"},
        DELIVERED | {"handset": "new", "operator-id": "31003"},
    ).known(Track.MESSAGE)
    assert (known.handset, known.to) == ("new", "15550100001")
    assert (known.client_reference, known.operator_id) == ("order-7", "31003")
    assert (known.code, known.status) == ("N102", "Delivered")


DETAILS = (
    "mms-id sent-as from to operator-id operator-name handset client-reference campaign-ref "
    "aggregator-id"
)


@pytest.mark.parametrize("field", DETAILS.split())
def test_every_detail_is_known_whichever_postback_brings_it(field: str) -> None:
    name = "from_" if field == "from" else field.replace("-", "_")
    for postbacks in ([SENT | {field: "x"}, DELIVERED], [SENT, DELIVERED | {field: "x"}]):
        assert getattr(record(*postbacks).known(Track.MESSAGE), name) == "x"


def test_details_of_another_track_are_not_taken_over() -> None:
    known = record(SENT, {"code": "N502", "handset": "Nokia"}).known(Track.MESSAGE)
    assert known.handset is None


def test_sent_at_is_the_first_time_it_was_sent() -> None:
    known = record(SENT | {"timestamp": at(7)}, SENT, DELIVERED).known(Track.MESSAGE)
    assert known.sent_at == at(1)
    assert record(DELIVERED).known(Track.MESSAGE).sent_at is None


@pytest.mark.parametrize(
    ("fields", "id_"),
    [
        ({"code": "N003", "mms-id": "M1"}, "M1"),
        ({"code": "N003", "audio-name": "M2"}, "M2"),
        ({"code": "E002", "audio-name": "http://example.test/a"}, "http://example.test/a"),
    ],
)
def test_a_template_is_known_by_its_id(fields: dict[str, str], id_: str) -> None:
    known = record(fields).known(Track.TEMPLATE)
    assert (known.mms_id, known.tracking_id) == (id_, None)


def test_the_keys_of_the_contract() -> None:
    assert Key("message", "acme", "T1").redis == "mms:message:{acme/T1}"
    assert Key("template", "acme", "M1").redis == "mms:template:{acme/M1}"
    assert reference_key("acme", "order-7") == "mms:ref:{acme/order-7}"


@given(postback_fields(), st.integers(0, 10**16 - 1))
def test_a_stored_postback_is_read_as_it_was_written(
    fields: dict[str, str], received_at: int
) -> None:
    normalised = decode("acme", as_json(fields))
    stored = {entry_name(normalised).encode(): entry_value(received_at, normalised.postback)}
    known = read_record(normalised.key, stored)
    assert known is not None
    (entry,) = known.entries
    assert (entry.track, entry.rank, entry.postback) == (
        normalised.track,
        normalised.rank,
        normalised.postback,
    )
    assert (entry.received_at, known.dropped) == (received_at, False)


@given(batch=st.lists(normalised_postbacks(), min_size=1, max_size=12), dropped=st.booleans())
def test_a_hash_is_read_back_as_the_model_has_it(
    batch: list[NormalisedPostback], *, dropped: bool
) -> None:
    key = batch[0].key
    model = Model(key)
    model.merge([received(normalised, AT) for normalised in batch])
    stored = {entry_name(each).encode(): entry_value(AT, each.postback) for each in batch}
    if dropped:
        stored[b"dropped"] = b"1"
    entries = model.record().entries
    assert read_record(key, stored) == Record(key, entries, dropped)


@given(
    normalised_postbacks() | normalised_postbacks("template"),
    normalised_postbacks() | normalised_postbacks("template"),
)
def test_the_names_in_the_hash_sort_as_the_ranks_of_a_track(
    one: NormalisedPostback, other: NormalisedPostback
) -> None:
    if one.track is other.track:
        by_name = entry_name(one) < entry_name(other)
        assert by_name == (str(one.rank) < str(other.rank))
    else:
        assert entry_name(one)[0] != entry_name(other)[0]


@given(st.integers(0, 10**16 - 1), st.integers(0, 10**16 - 1), normalised_postbacks())
def test_stored_times_of_arrival_compare_as_texts(
    one: int, other: int, normalised: NormalisedPostback
) -> None:
    first, second = (entry_value(each, normalised.postback)[:16] for each in (one, other))
    assert (first < second) == (one < other)
    assert (first.isdigit(), int(first)) == (True, one)


def test_an_empty_hash_is_no_record() -> None:
    assert read_record(Key("message", "acme", "T1"), {}) is None


@pytest.mark.parametrize(
    ("status", "outcome"),
    [("Deferred", "deferred"), ("Held", "sent"), ("Unreachable", "unreachable")],
)
def test_an_entry_that_release_0_1_0_ranked_as_delivered_has_the_outcome_of_its_text(
    status: str, outcome: str
) -> None:
    """Release 0.1.0 ranked every unknown status text as a delivery."""
    texts = BASE | {"code": "N102", "status": status, "timestamp": at(1)}
    old = decode("acme", as_json(texts))
    expired = decode("acme", as_json(BASE | EXPIRED))
    stored = {
        b"m4" + entry_name(old)[2:].encode(): entry_value(AT, old.postback),
        entry_name(expired).encode(): entry_value(AT, expired.postback),
    }
    known = read_record(old.key, stored)
    assert known is not None
    assert {str(entry.postback.outcome) for entry in known.entries} == {outcome, "expired"}
    assert known.known(Track.MESSAGE).outcome == "expired"


@given(st.binary(max_size=46) | st.sampled_from([b"", b"m", b"m2", b"\xff" * 46, b"q" + b"2" * 45]))
def test_a_damaged_name_is_read_or_refused_and_nothing_else(name: bytes) -> None:
    normalised = decode("acme", as_json(BASE | EXPIRED))
    with contextlib.suppress(UnreadableRecordError):
        read_record(normalised.key, {name: entry_value(AT, normalised.postback)})
