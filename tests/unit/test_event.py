"""A terminal outcome as a CloudEvent."""

import json
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.postback.codes import Track
from shared.postback.event import CONTENT_TYPE, decode_event, event_of
from shared.postback.normalise import decode
from shared.postback.postback import NormalisedPostback
from shared.postback.record import Record
from tests.support import contract
from tests.support.model import Model, received
from tests.support.strategies import as_json, normalised_postbacks, postback_fields

AT = 1_795_514_400_000_000  # 2026-11-24T10:00:00Z
DELIVERED = {
    "origin": "MMS_MT",
    "code": "N102",
    "status": "Delivered",
    "tracking-id": "T1",
    "timestamp": "2026-11-24T05:00:00.5-05:00",
    "operator-id": "31003",
    "from": "28444",
}
DATA = [
    "tracking_id",
    "mms_id",
    "outcome",
    "code",
    "status",
    "status_details",
    "sent_as",
    "from",
    "to",
    "operator_id",
    "operator_name",
    "handset",
    "client_reference",
    "campaign_ref",
    "aggregator_id",
    "sent_at",
    "completed_at",
    "corrects",
]


def record(*normalised_postbacks_: NormalisedPostback) -> Record:
    model = Model(normalised_postbacks_[0].key)
    model.merge([received(normalised, AT) for normalised in normalised_postbacks_])
    return model.record()


def delivered(source: str = "acme", **fields: str) -> NormalisedPostback:
    changed = {name.replace("_", "-"): value for name, value in fields.items()}
    return decode(source, as_json(DELIVERED | changed))


def test_an_event_is_a_cloudevent_in_structured_json() -> None:
    normalised = delivered()
    event = event_of(record(normalised), Track.MESSAGE)
    encoded = json.loads(event.encode())
    data = encoded.pop("data")
    assert encoded.pop("id")
    assert encoded == {
        "specversion": "1.0",
        "type": "mms.message.delivered",
        "source": "/mms-postbacks/acme",
        "subject": "T1",
        "time": "2026-11-24T10:00:00.500000Z",
        "datacontenttype": "application/json",
        "sequence": str(normalised.rank),
    }
    assert CONTENT_TYPE == "application/cloudevents+json"
    assert sorted(data) == sorted(DATA)
    assert (data["from"], data["corrects"]) == ("28444", None)


def test_without_the_providers_time_an_event_has_the_time_of_arrival() -> None:
    event = event_of(record(delivered(timestamp="")), Track.MESSAGE)
    assert event.time == event.data.completed_at == "2026-11-24T10:00:00Z"


@given(postback_fields())
def test_the_type_and_the_routing_key_name_track_and_outcome(fields: dict[str, str]) -> None:
    normalised = decode("acme", as_json(fields))
    event = event_of(record(normalised), normalised.track)
    outcome = normalised.postback.outcome
    assert event.type == f"mms.{normalised.track}.{outcome}"
    assert re.fullmatch(
        rf"{normalised.track}\.{outcome}\.[\w*#-]{{1,64}}", event.routing_key, re.ASCII
    )
    assert len(event.routing_key.encode()) <= 255


@pytest.mark.parametrize(
    ("operator", "word"), [("31003", "31003"), ("", "unknown"), ("tmo-us_1", "tmo-us_1")]
)
def test_the_routing_key_ends_with_the_carrier(operator: str, word: str) -> None:
    event = event_of(record(delivered(operator_id=operator)), Track.MESSAGE)
    assert event.routing_key == f"message.delivered.{word}"


@pytest.mark.parametrize("operator", ["310.03", "*", "#", "a b", "日本", "x" * 256, "." * 256])
def test_no_carrier_can_change_the_shape_of_a_routing_key(operator: str) -> None:
    key = event_of(record(delivered(operator_id=operator)), Track.MESSAGE).routing_key
    assert re.fullmatch(r"message\.delivered\.[A-Za-z0-9_-]{1,64}", key)


@given(postback_fields())
def test_an_event_is_decoded_as_it_was_encoded(fields: dict[str, str]) -> None:
    normalised = decode("acme", as_json(fields))
    event = event_of(record(normalised), normalised.track)
    assert decode_event(event.encode()) == event


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", b'{"type":"mms.message.delivered"}'])
def test_a_body_that_is_no_event_is_refused(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_event(body)


@given(st.lists(normalised_postbacks(), min_size=1, max_size=8), normalised_postbacks())
def test_the_id_depends_on_key_track_and_deciding_postback_alone(
    batch: list[NormalisedPostback], other: NormalisedPostback
) -> None:
    before, after = record(*batch), record(*batch, other)
    for track in before.tracks():
        decides = before.of(track)[0].rank == after.of(track)[0].rank
        same_id = event_of(before, track).id == event_of(after, track).id
        assert same_id == decides


def test_another_key_track_or_postback_gives_another_id() -> None:
    normalised_postbacks_ = [
        delivered(),
        delivered("other"),
        delivered(tracking_id="T2"),
        delivered(code="N502"),
        delivered(handset="Nokia"),
        delivered(code="N202"),
    ]
    ids = {
        event_of(record(normalised), normalised.track).id for normalised in normalised_postbacks_
    }
    assert len(ids) == len(normalised_postbacks_)


def test_every_terminal_outcome_of_the_contract_has_its_type() -> None:
    types = set()
    for code in contract.CODES:
        for status in contract.STATUSES:
            normalised = delivered(code=code, status=status, mms_id="M1")
            if normalised.rank.terminal:
                types.add(event_of(record(normalised), normalised.track).type)
    decided = [
        "delivered",
        "expired",
        "rejected",
        "failed",
        "unsupported",
        "unrecognised",
        "unreachable",
        "indeterminate",
    ]
    expected = {
        f"mms.{track}.{outcome}" for track in ("message", "discovery") for outcome in decided
    }
    assert types == expected | {"mms.template.ready", "mms.template.failed"}


def test_an_event_of_release_0_1_0_is_read() -> None:
    """It has a `version` in its data and no `sequence`: every other event supersedes it."""
    event = event_of(record(delivered()), Track.MESSAGE)
    fields = json.loads(event.encode())
    del fields["sequence"]
    fields["data"]["version"] = 3
    old = decode_event(json.dumps(fields).encode())
    assert old == msgspec.structs.replace(event, sequence="")
    assert old.sequence < event.sequence
