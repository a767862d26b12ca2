"""The record of a key, as a function of the set of its postbacks."""

import pytest

from shared.postback.codes import Track
from shared.postback.normalise import decode
from shared.postback.postback import Key
from shared.postback.record import Record, reference_key
from tests.support.model import Model, received
from tests.support.strategies import as_json

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
