"""Postbacks of other origins as events."""

import json
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import OtherOriginError, UndecodableError
from shared.postback.dead_letter import Reason
from shared.postback.dialects.fields import MAX_DEPTH
from shared.postback.envelope import Arrival
from shared.postback.normalise import decode
from shared.postback.passthrough import PassthroughEvent, decode_passthrough, passthrough_of
from tests.support.strategies import DIALECTS, Render, as_json, postback_fields

AT = 1_795_514_400_000_000  # 2026-11-24T10:00:00Z
INBOUND = {
    "origin": "MMS_MO",
    "code": "N401",
    "from": "15550100001",
    "tracking-id": "T1",
    "timestamp": "2026-11-24T05:00:00.5-05:00",
    "Reason-Code": "7",
}


def passed(body: bytes, source: str = "acme") -> PassthroughEvent:
    arrival = Arrival(AT, source, "", body)
    with pytest.raises(OtherOriginError) as caught:
        decode(source, body)
    return passthrough_of(arrival, caught.value.fields)


@pytest.mark.parametrize("render", DIALECTS.values(), ids=DIALECTS)
def test_it_has_origin_code_and_fields_under_canonical_names(render: Render) -> None:
    event = passed(render(INBOUND))
    assert json.loads(event.encode()) == {
        "specversion": "1.0",
        "type": "mms.passthrough.mms_mo",
        "source": "/mms-postbacks/acme",
        "id": event.id,
        "time": "2026-11-24T10:00:00.500000Z",
        "subject": "T1",
        "datacontenttype": "application/json",
        "data": {
            "origin": "MMS_MO",
            "code": "N401",
            "fields": {
                "from": "15550100001",
                "tracking-id": "T1",
                "timestamp": "2026-11-24T05:00:00.5-05:00",
                "reasoncode": "7",
            },
        },
    }
    assert event.routing_key == "passthrough.mms_mo.N401"
    assert decode_passthrough(event.encode()) == event


def test_nested_json_is_kept_as_it_was_written() -> None:
    parts = '[{"type": "image/jpeg", "size": 1.50, "of": [1, null, true, {}]}, "\\u00e9[{"]'
    body = f'{{"origin": "MMS_MO", "attachments": {parts}, "to": 28444, "seen": false}}'.encode()
    event = passed(body)
    assert parts.encode() in event.encode()
    data = json.loads(event.encode())["data"]
    assert data == {
        "origin": "MMS_MO",
        "code": None,
        "fields": {"attachments": json.loads(parts), "to": "28444", "seen": False},
    }


def test_nested_xml_becomes_objects_and_arrays() -> None:
    body = (
        b"<postback><origin>MMS_MO</origin><parts><part>a</part><part><id>2</id></part>"
        b"<count>2</count></parts></postback>"
    )
    assert passed(body).data.fields == {"parts": {"part": ["a", {"id": "2"}], "count": "2"}}


def test_the_wrapped_dialect() -> None:
    body = b"<POSTBACK><NOTIFICATION><ORIGIN>SUB</ORIGIN><TO>1</TO></NOTIFICATION></POSTBACK>"
    assert passed(body).data.fields == {"to": "1"}


def test_without_time_and_id_it_has_the_time_of_arrival_and_no_subject() -> None:
    event = passed(as_json({"origin": "SUB"}))
    assert (event.time, event.routing_key) == ("2026-11-24T10:00:00Z", "passthrough.sub.unknown")
    assert "subject" not in json.loads(event.encode())
    assert passed(as_json({"origin": "SUB", "mms-id": "M1"})).subject == "M1"


def test_the_id_is_from_source_and_body_alone() -> None:
    body = as_json(INBOUND)
    again = Arrival(AT + 10**9, "acme", "text/odd", body)
    with pytest.raises(OtherOriginError) as caught:
        decode("acme", body)
    assert passthrough_of(again, caught.value.fields).id == passed(body).id
    others = {passed(body, "other").id, passed(body + b" ").id, passed(body).id}
    assert len(others) == 3


@given(
    st.text(min_size=1).map(str.strip).filter(lambda text: text not in ("", "MMS_MT")), st.text()
)
def test_no_origin_or_code_changes_the_form_of_type_and_routing_key(origin: str, code: str) -> None:
    event = passed(json.dumps({"origin": origin * 50, "code": code * 50}).encode())
    assert re.fullmatch(r"mms\.passthrough\.[a-z0-9_-]{1,64}", event.type)
    assert re.fullmatch(r"passthrough\.[a-z0-9_-]{1,64}\.[A-Za-z0-9_-]{1,64}", event.routing_key)


@given(postback_fields(), st.sampled_from(sorted(DIALECTS)))
def test_any_postback_with_another_origin_is_passed_on(fields: dict[str, str], name: str) -> None:
    event = passed(DIALECTS[name](fields | {"origin": "SMS_MT"}))
    kept = {name: text for name, text in fields.items() if name not in ("origin", "code")}
    assert event.data.fields == kept
    assert decode_passthrough(event.encode()) == event


@pytest.mark.parametrize(("depth", "kept"), [(MAX_DEPTH, True), (MAX_DEPTH + 1, False)])
def test_a_field_nested_too_deeply_is_a_dead_letter(depth: int, *, kept: bool) -> None:
    body = b'{"origin":"MMS_MO","a":' + b'[{"]":' * (depth // 2) + b"[" * (depth % 2)
    body += b"1" + b"]" * (depth % 2) + b"}]" * (depth // 2) + b"}"
    if kept:
        assert passed(body)
        return
    with pytest.raises(UndecodableError) as caught:
        passed(body)
    assert caught.value.reason is Reason.MALFORMED


def test_another_event_is_none_of_these() -> None:
    body = passed(as_json(INBOUND)).encode().replace(b"mms.passthrough.mms_mo", b"mms.message.sent")
    with pytest.raises(msgspec.DecodeError):
        decode_passthrough(body)
