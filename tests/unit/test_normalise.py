"""The key, identity and rank of a postback, and the reasons for dead letters."""

from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import OtherOriginError, UndecodableError
from shared.postback.dead_letter import Reason
from shared.postback.normalise import decode
from shared.postback.postback import Key, NormalisedPostback, Rank
from tests.support import contract
from tests.support.strategies import (
    DIALECTS,
    Render,
    as_json,
    as_legacy_xml,
    as_xml,
    normalised_postbacks,
    postback_fields,
    timestamps,
)

SENT = {"origin": "MMS_MT", "code": "N101", "tracking-id": "T1"}
DELIVERED = SENT | {"code": "N102", "status": "Delivered"}
UNTRACKED = {"origin": "MMS_MT", "mms-id": "M1"}

TRACKED = [code for code, (track, _) in contract.CODES.items() if track != "template"]
TEMPLATE_CODES = [code for code in contract.CODES if code not in TRACKED]


def normalised_from(fields: dict[str, str]) -> NormalisedPostback:
    return decode("acme", as_json(fields))


def without(fields: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in fields.items() if name not in names}


def refusal(body: bytes) -> UndecodableError:
    with pytest.raises(UndecodableError) as caught:
        decode("acme", body)
    return caught.value


# Identity


@given(postback_fields())
def test_the_same_fields_in_any_dialect_are_one_postback(fields: dict[str, str]) -> None:
    normalised_postbacks_ = [decode("acme", render(fields)) for render in DIALECTS.values()]
    assert all(normalised == normalised_postbacks_[0] for normalised in normalised_postbacks_)


@given(postback_fields(), st.randoms(use_true_random=False))
def test_the_order_of_the_fields_is_not_part_of_the_identity(
    fields: dict[str, str], random: Random
) -> None:
    names = sorted(fields)
    random.shuffle(names)
    assert normalised_from({name: fields[name] for name in names}) == normalised_from(fields)


@pytest.mark.parametrize(("in_xml", "in_json"), contract.WORDINGS.items())
@pytest.mark.parametrize("code", contract.CODES)
def test_both_wordings_of_a_status_are_one_postback(code: str, in_xml: str, in_json: str) -> None:
    fields = DELIVERED | {"code": code, "mms-id": "M1"}
    said_in_json = decode("acme", as_json(fields | {"status": in_json}))
    assert decode("acme", as_xml(fields | {"status": in_xml})) == said_in_json
    assert decode("acme", as_legacy_xml(fields | {"status": in_xml.upper()})) == said_in_json


@given(postback_fields(), st.data())
def test_another_value_in_any_field_is_another_postback(
    fields: dict[str, str], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(set(fields) - {"origin", "code", "status"})))
    other = {"timestamp": "1999-01-01T00:00:00Z"}.get(name, "another")
    assert (
        normalised_from(fields | {name: other}).rank.identity
        != normalised_from(fields).rank.identity
    )


@given(postback_fields(), st.data())
def test_moving_a_value_to_another_field_is_another_postback(
    fields: dict[str, str], data: st.DataObject
) -> None:
    movable = sorted(set(fields) & {"handset", "os", "from", "to", "campaign-ref", "future"})
    if not movable:
        return
    name = data.draw(st.sampled_from(movable))
    moved = without(fields, name) | {f"{name}-x": fields[name]}
    assert normalised_from(moved).rank.identity != normalised_from(fields).rank.identity


def test_an_empty_field_is_not_part_of_the_identity() -> None:
    assert normalised_from(SENT | {"handset": "", "os": "  "}) == normalised_from(SENT)


def test_neither_source_nor_spelling_is_part_of_the_rank() -> None:
    assert decode("other", as_xml(SENT)).rank == decode("acme", as_json(SENT)).rank


# Rank


@given(normalised_postbacks(), normalised_postbacks())
def test_ranks_sort_as_phase_then_time_then_identity(
    one: NormalisedPostback, other: NormalisedPostback
) -> None:
    def order(normalised: NormalisedPostback) -> tuple[int, datetime, str]:
        phase = contract.phase("message", normalised.postback.outcome)
        return (
            phase,
            normalised.rank.moment or datetime.min.replace(tzinfo=UTC),
            normalised.rank.identity,
        )

    assert (str(one.rank) < str(other.rank)) == (order(one) < order(other))


@given(normalised_postbacks() | normalised_postbacks("template"))
def test_parse_inverts_str_and_the_texts_are_of_one_length(normalised: NormalisedPostback) -> None:
    assert Rank.parse(str(normalised.rank)) == normalised.rank
    assert len(str(normalised.rank)) == len(str(normalised_from(SENT).rank))
    assert set(str(normalised.rank)) <= set("0123456789abcdef")


@given(normalised_postbacks() | normalised_postbacks("template"))
def test_a_rank_is_terminal_when_its_outcome_is(normalised: NormalisedPostback) -> None:
    assert normalised.rank.terminal == (normalised.postback.outcome not in contract.NOT_TERMINAL)


def ranked(fields: Iterable[dict[str, str]]) -> list[str]:
    return [str(normalised_from(each).rank) for each in fields]


def test_the_order_of_ranks() -> None:
    early, late = ({"timestamp": f"2026-11-24T1{hour}:00:00Z"} for hour in (0, 5))
    expired = DELIVERED | {"status": "Expired"}
    rising = ranked(
        [
            SENT | {"code": "N013"} | late,
            SENT,
            SENT | early,
            SENT | late,
            expired,
            expired | early,
            DELIVERED | {"code": "E102", "status": "Failed"} | late,
            DELIVERED,
            DELIVERED | early,
            DELIVERED | {"code": "N202"} | late,
        ]
    )
    assert rising == sorted(rising)
    ready = {"origin": "MMS_MT", "code": "N003", "mms-id": "M1"}
    templates = ranked([ready, ready | late, ready | {"code": "E002"} | early])
    assert templates == sorted(templates)


@pytest.mark.parametrize(
    "timestamp",
    [
        "2026-11-24T10:00:00Z",
        "2026-11-24T10:00:00+00:00",
        "2026-11-24T10:00:00-00:00",
        "2026-11-24T05:00:00-05:00",
        "2026-11-24T15:30:00+05:30",
        "2026-11-25T00:00:00+14:00",
        "2026-11-24T10:00:00.000Z",
        "2026-11-24T05:00:00.000000-05:00",
        "2026-11-24T05:00:00-0500",
        "20261124T100000Z",
        " 2026-11-24T10:00:00Z ",
    ],
)
def test_one_moment_in_any_offset_is_one_postback(timestamp: str) -> None:
    normalised = normalised_from(SENT | {"timestamp": timestamp})
    assert normalised == normalised_from(SENT | {"timestamp": "2026-11-24T10:00:00Z"})
    assert normalised.rank.moment == datetime(2026, 11, 24, 10, tzinfo=UTC)


@given(timestamps(), st.timezones())
def test_a_timestamp_in_any_time_zone_is_one_postback(timestamp: str, zone: tzinfo) -> None:
    moment = datetime.fromisoformat(timestamp)
    elsewhere = moment.astimezone(zone).isoformat()
    assert normalised_from(SENT | {"timestamp": elsewhere}) == normalised_from(
        SENT | {"timestamp": timestamp}
    )
    assert normalised_from(SENT | {"timestamp": timestamp}).rank.moment == moment


@given(timestamps(), timestamps())
def test_ranks_of_one_phase_sort_by_the_providers_time(one: str, other: str) -> None:
    moments = [datetime.fromisoformat(each) for each in (one, other)]
    ranks = ranked(SENT | {"timestamp": each} for each in (one, other))
    if moments[0] != moments[1]:
        assert (ranks[0] < ranks[1]) == (moments[0] < moments[1])


@pytest.mark.parametrize(
    "timestamp",
    [
        "yesterday",
        "2026-13-01T00:00:00Z",
        "2026-11-24T25:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "0",
    ],
)
def test_an_invalid_timestamp_sorts_as_no_time_and_is_kept(timestamp: str) -> None:
    normalised = normalised_from(SENT | {"timestamp": timestamp})
    assert normalised.rank.moment is None
    assert normalised.postback.timestamp == timestamp
    assert str(normalised.rank) < str(
        normalised_from(SENT | {"timestamp": "2001-01-01T00:00:00Z"}).rank
    )


# Key


@pytest.mark.parametrize("code", TRACKED)
def test_messages_and_discoveries_belong_to_their_tracking_id(code: str) -> None:
    fields = SENT | {"code": code, "mms-id": "M1", "audio-name": "A1"}
    assert normalised_from(fields).key == Key("message", "acme", "T1")


@pytest.mark.parametrize("code", TEMPLATE_CODES)
def test_templates_belong_to_their_mms_id(code: str) -> None:
    fields = SENT | {"code": code, "mms-id": "M1", "audio-name": "A1", "image-name": "I1"}
    assert normalised_from(fields).key == Key("template", "acme", "M1")


@pytest.mark.parametrize(
    ("code", "field", "found"),
    [
        ("N003", "audio-name", "35674"),
        ("E002", "audio-name", "http://example.test/a.mp3"),
        ("E003", "video-name", "http://example.test/v.mp4"),
        ("E004", "image-name", "http://example.test/i.jpg"),
        ("E002", "video-name", "http://example.test/v.mp4"),
        ("E004", "audio-name", "http://example.test/a.mp3"),
    ],
)
def test_a_template_without_mms_id_belongs_to_the_content_that_it_names(
    code: str, field: str, found: str
) -> None:
    fields = without(SENT, "tracking-id") | {"code": code, field: found, "mms-id": ""}
    assert normalised_from(fields).key == Key("template", "acme", found)


def test_discovery_and_message_share_a_key_and_not_a_track() -> None:
    message, discovery = normalised_from(DELIVERED), normalised_from(DELIVERED | {"code": "N502"})
    assert message.key == discovery.key
    assert message.track != discovery.track


def test_two_sources_are_two_records() -> None:
    keys = {decode(source, as_json(SENT)).key.redis for source in ("acme", "other")}
    assert keys == {"mms:message:{acme/T1}", "mms:message:{other/T1}"}


def test_an_unknown_field_is_kept() -> None:
    postback = normalised_from(SENT | {"future": "kept", "Another-One": "too"}).postback
    assert postback.extra == {"future": "kept", "anotherone": "too"}


@pytest.mark.parametrize("origin", ["MMS_MO", "SMS_MT", "SMS_MO", "mms_mt", "X"])
@pytest.mark.parametrize("render", DIALECTS.values(), ids=DIALECTS)
def test_another_origin_raises_its_own_error(origin: str, render: Render) -> None:
    with pytest.raises(OtherOriginError) as caught:
        decode("acme", render({"origin": origin, "tracking-id": "T1"}))
    assert caught.value.fields == {"origin": origin, "tracking-id": "T1"}


def test_an_error_without_timestamp_is_normalised() -> None:
    normalised = normalised_from(
        {"origin": "MMS_MT", "code": "E101", "tracking-id": "T1", "status": "Failed"}
    )
    assert (normalised.rank.moment, normalised.postback.outcome) == (None, "failed")


def test_an_n102_that_says_expired_is_expired() -> None:
    body = as_legacy_xml(DELIVERED | {"status": "Message Sent/Expired"})
    assert decode("acme", body).postback.outcome == "expired"


# Dead letters

DEAD: list[tuple[str, Reason, bytes]] = [
    ("no dialect", Reason.MALFORMED, b"hello"),
    ("an empty object", Reason.INVALID, b"{}"),
    ("an empty root", Reason.INVALID, b"<postback/>"),
    ("no origin", Reason.INVALID, as_json(without(SENT, "origin"))),
    ("no code", Reason.INVALID, as_xml(without(SENT, "code"))),
    ("an empty code", Reason.INVALID, as_xml(SENT | {"code": " "})),
    ("null for a code", Reason.INVALID, as_json(SENT).replace(b'"N101"', b"null")),
    ("an array for a code", Reason.INVALID, as_json(SENT).replace(b'"N101"', b"[]")),
    ("an object for an origin", Reason.INVALID, as_json(SENT).replace(b'"MMS_MT"', b"{}")),
    ("a boolean for an id", Reason.INVALID, as_json(SENT).replace(b'"T1"', b"true")),
    ("an array for an id", Reason.INVALID, as_json(SENT).replace(b'"T1"', b'["T1"]')),
    ("an object in an unknown field", Reason.INVALID, as_json(SENT)[:-1] + b',"x":{"y":1}}'),
    ("elements in an element", Reason.INVALID, as_xml(SENT).replace(b">T1<", b"><id>T1</id><")),
    *(
        (f"code {code}", Reason.UNKNOWN_CODE, as_json(SENT | {"code": code}))
        for code in ("N000", "n101", "101", "N1O1", "delivered")
    ),
    *(
        (f"{code} without a tracking-id", Reason.NO_KEY, as_xml(UNTRACKED | {"code": code}))
        for code in TRACKED
    ),
    *(
        (f"{code} that names nothing", Reason.NO_KEY, as_json(SENT | {"code": code}))
        for code in TEMPLATE_CODES
    ),
    (
        "N003 with an image alone",
        Reason.NO_KEY,
        as_json(SENT | {"code": "N003", "image-name": "I"}),
    ),
]


@pytest.mark.parametrize(
    ("reason", "body"), [row[1:] for row in DEAD], ids=[row[0] for row in DEAD]
)
def test_the_reason_of_each_dead_letter(reason: Reason, body: bytes) -> None:
    assert refusal(body).reason is reason


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("client-reference", 64),
        ("tracking-id", 256),
        ("mms-id", 256),
        ("operator-id", 256),
        ("aggregator-id", 256),
    ],
)
@pytest.mark.parametrize("character", ["x", "é", "\U0001f600"])
def test_a_field_at_its_limit_is_taken_and_one_over_is_too_long(
    name: str, limit: int, character: str
) -> None:
    for render in DIALECTS.values():
        decode("acme", render(SENT | {name: character * limit}))
        assert refusal(render(SENT | {name: character * (limit + 1)})).reason is Reason.TOO_LONG


@pytest.mark.parametrize(
    ("code", "name"), [("N003", "audio-name"), ("E003", "video-name"), ("E004", "image-name")]
)
def test_a_content_name_that_is_the_id_has_the_limit_of_an_id(code: str, name: str) -> None:
    fields = SENT | {"code": code}
    assert normalised_from(fields | {name: "x" * 256}).key.id == "x" * 256
    assert refusal(as_json(fields | {name: "x" * 257})).reason is Reason.TOO_LONG


@pytest.mark.parametrize("name", [*contract.FIELDS[2:], "future"])
def test_every_field_has_a_limit(name: str) -> None:
    for render in DIALECTS.values():
        assert refusal(render(SENT | {name: "x" * 50_000})).reason is Reason.TOO_LONG


def test_the_names_of_fields_and_their_number_have_limits() -> None:
    assert refusal(as_json(SENT | {"x" * 50_000: "1"})).reason is Reason.TOO_LONG
    many = SENT | {f"x{number}": "1" for number in range(1000)}
    assert refusal(as_json(many)).reason is Reason.TOO_LONG
