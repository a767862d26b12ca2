"""A record as Redis holds it, in each format."""

import contextlib
import hashlib
import math
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import UnreadableRecordError
from shared.postback.codes import CODES, Track
from shared.postback.normalise import decode
from shared.postback.postback import Key, NormalisedPostback
from shared.postback.record import Record
from shared.postback.stored import DROPPED, FORMATS, TIME_BYTES, format_1, format_2, read_record
from shared.postback.words import WORDS, Short, restore, shorten
from tests.support.hashes import as_hash
from tests.support.model import Model, received
from tests.support.strategies import as_json, normalised_postbacks, postback_fields

AT = 1_795_514_400_000_000  # 2026-11-24T10:00:00Z
BASE = {"origin": "MMS_MT", "tracking-id": "T1"}


def at(hour: int) -> str:
    return f"2026-11-24T{hour:02}:00:00Z"


EXPIRED = {"code": "N103", "timestamp": at(2)}

formats = st.sampled_from(sorted(FORMATS))
times = st.integers(0, 10**16 - 1)


@given(postback_fields(), times, formats)
def test_a_stored_postback_is_read_as_it_was_written(
    fields: dict[str, str], received_at: int, written: int
) -> None:
    normalised = decode("acme", as_json(fields))
    known = read_record(normalised.key, as_hash([normalised], received_at, written=written))
    assert known is not None
    (entry,) = known.entries
    assert (entry.track, entry.rank, entry.postback) == (
        normalised.track,
        normalised.rank,
        normalised.postback,
    )
    assert (entry.received_at, known.dropped) == (received_at, False)


HOSTILE = (
    *("\0", "\0" * 24, "-1", "-0", "+1", "00", "007", "0", "1e9", " 1", "1 ", "9" * 18, "9" * 19),
    *(
        "٣",
        "\uff11\uff12",
        "²",
        "True",
        "None",
        "N101",
        "n101",
        "\ufffd",
        "\u2028",
        "🙂" * 250,
        "x" * 1024,
    ),
    *("123E4567-e89b-12d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174000"),
    *("123e4567e89b12d3a456426614174000", "00000000-0000-0000-0000-000000000000"),
    *("123e4567-e89b-12d3-a456-426614174000\n", "٣" * 36, str(2**63), str(2**64), *WORDS[:3]),
)
TEXT_FIELDS = (
    *("status", "status-details", "sent-as", "mms-id", "from", "to", "operator-id"),
    *("operator-name", "timestamp", "handset", "campaign-ref", "aggregator-id", "audio-name"),
    *("video-name", "image-name", "from-mask", "os", "new", "n" * 256, "\0", "0"),
)


@given(
    st.dictionaries(st.sampled_from(TEXT_FIELDS), st.sampled_from(HOSTILE) | st.text(), max_size=21)
)
def test_any_text_in_any_field_is_read_as_it_was_written(fields: dict[str, str]) -> None:
    short = {name: text[:256] for name, text in fields.items()}
    normalised = decode("acme", as_json(BASE | {"code": "E102"} | short))
    known = read_record(normalised.key, as_hash([normalised]))
    assert known is not None
    assert known.entries[0].postback == normalised.postback
    assert known.entries[0].rank == normalised.rank


@given(st.sampled_from(HOSTILE) | st.text())
def test_a_text_is_restored_from_its_short_form(text: str) -> None:
    assert restore(shorten([text, None, text])) == [text, None, text]


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("N101", -1),
        ("15550100001", 15550100001),
        ("0", 0),
        ("0001470", "0001470"),
        ("123e4567-e89b-12d3-a456-426614174000", (0x123E4567E89B12D3, 0xA456426614174000)),
        ("order-7", "order-7"),
    ],
)
def test_the_short_form_of_a_text(text: str, short: Short) -> None:
    assert shorten([text]) == [short]


def test_the_table_of_words_is_that_of_format_2() -> None:
    """Records in Redis cannot be read with another one."""
    digest = hashlib.sha256("\n".join(WORDS).encode()).hexdigest()
    assert digest[:16] == "54304c06e225de52"
    assert len(set(WORDS)) == len(WORDS)
    assert set(CODES) <= set(WORDS)


@given(
    batch=st.lists(normalised_postbacks(), min_size=1, max_size=12),
    dropped=st.booleans(),
    written=st.lists(formats, min_size=12, max_size=12),
)
def test_a_hash_is_read_back_as_the_model_has_it(
    batch: list[NormalisedPostback], written: list[int], *, dropped: bool
) -> None:
    key = batch[0].key
    model = Model(key)
    model.merge([received(normalised, AT) for normalised in batch])
    distinct = {each.rank: each for each in batch}.values()
    stored = {DROPPED: b"1"} if dropped else {}
    for number in FORMATS:
        those = [each for each, its in zip(distinct, written, strict=False) if its == number]
        stored |= as_hash(those, AT, written=number)
    assert read_record(key, stored) == Record(key, model.record().entries, dropped)


any_track = normalised_postbacks() | normalised_postbacks("template")


@given(any_track, any_track)
def test_the_names_of_format_1_sort_as_the_ranks_of_a_track(
    one: NormalisedPostback, other: NormalisedPostback
) -> None:
    names = format_1(1, one)[0], format_1(1, other)[0]
    if one.track is other.track:
        assert (names[0] < names[1]) == (str(one.rank) < str(other.rank))
    else:
        assert names[0][:1] != names[1][:1]


def _rank_and_track(name: bytes) -> bytes:
    """As `merge.lua` compares names of format 2."""
    fraction = name[8:11] if len(name) == 24 else bytes(3)
    return name[:8] + fraction + name[-13:]


@given(any_track, any_track)
def test_the_names_of_format_2_sort_as_the_ranks(
    one: NormalisedPostback, other: NormalisedPostback
) -> None:
    first, second = (_rank_and_track(format_2(1, each)[0]) for each in (one, other))
    if one.rank != other.rank:
        assert (first < second) == (str(one.rank) < str(other.rank))
    assert (first == second) == (one.rank == other.rank)


@given(times, times, normalised_postbacks())
def test_stored_times_of_arrival_compare_as_bytes(
    one: int, other: int, normalised: NormalisedPostback
) -> None:
    first, second = (format_1(each, normalised)[1][:16] for each in (one, other))
    assert (first < second) == (one < other)
    assert (first.isdigit(), int(first)) == (True, one)
    first, second = (format_2(each, normalised)[1][:TIME_BYTES] for each in (one, other))
    assert (first < second) == (one < other)


def test_a_message_with_a_receipt_takes_less_than_half_of_format_1() -> None:
    sent = {
        "code": "N101",
        "status": "Sent",
        "sent-as": "MMS",
        "mms-id": "35674",
        "from": "28444",
        "to": "15550100001",
        "operator-id": "31003",
        "operator-name": "Verizon Wireless",
        "timestamp": at(1),
        "client-reference": "a57f1c0e-7b1e-4c58-9d4b-0a6f2f1c9e11",
    }
    receipt = sent | {"code": "N102", "status": "Delivered", "timestamp": at(2), "handset": "Nokia"}
    postbacks = [decode("acme", as_json(BASE | fields)) for fields in (sent, receipt)]
    sizes = [
        sum(map(len, (*stored, *stored.values())))
        for stored in (as_hash(postbacks, written=number) for number in (1, 2))
    ]
    assert sizes[1] < 0.5 * sizes[0]


def test_a_postback_that_is_there_in_both_formats_is_one_entry() -> None:
    """A worker of release 0.2.0 does not see format 2."""
    normalised = decode("acme", as_json(BASE | EXPIRED))
    for first, second in ((AT, AT + 1), (AT + 1, AT)):
        stored = as_hash([normalised], first) | as_hash([normalised], second, written=1)
        known = read_record(normalised.key, stored)
        assert known is not None
        assert [entry.received_at for entry in known.entries] == [AT]


def test_an_empty_hash_is_no_record() -> None:
    assert read_record(Key("message", "acme", "T1"), {}) is None


@pytest.mark.parametrize(
    ("status", "outcome"),
    [("Deferred", "deferred"), ("Held", "sent"), ("Unreachable", "unreachable")],
)
@pytest.mark.parametrize("other", sorted(FORMATS))
def test_an_entry_that_release_0_1_0_ranked_as_delivered_has_the_outcome_of_its_text(
    status: str, outcome: str, other: int
) -> None:
    """Release 0.1.0 ranked every unknown status text as a delivery."""
    texts = BASE | {"code": "N102", "status": status, "timestamp": at(1)}
    old = decode("acme", as_json(texts))
    name, value = format_1(AT, old)
    expired = decode("acme", as_json(BASE | EXPIRED))
    stored = {b"m4" + name[2:]: value} | as_hash([expired], AT, written=other)
    known = read_record(old.key, stored)
    assert known is not None
    assert {str(entry.postback.outcome) for entry in known.entries} == {outcome, "expired"}
    assert known.known(Track.MESSAGE).outcome == "expired"


@given(
    st.binary(max_size=46)
    | st.binary(min_size=24, max_size=24)
    | st.sampled_from([b"", b"m", b"m2", b"\xff" * 46, b"q" + b"2" * 45, b"\x02" * 21]),
    formats,
)
def test_a_damaged_name_is_read_or_refused_and_nothing_else(name: bytes, written: int) -> None:
    normalised = decode("acme", as_json(BASE | EXPIRED))
    stored = as_hash([normalised], AT, written=written)
    (value,) = (value for each, value in stored.items() if len(each) > 1)
    with contextlib.suppress(UnreadableRecordError):
        read_record(normalised.key, stored | {name: value})


@given(value=st.binary(max_size=40), own=st.booleans())
def test_a_damaged_value_is_read_or_refused_and_nothing_else(value: bytes, *, own: bool) -> None:
    normalised = decode("acme", as_json(BASE | EXPIRED))
    stored = as_hash([normalised], AT)
    (name,) = (each for each in stored if (len(each) > 1) is own)
    with contextlib.suppress(UnreadableRecordError):
        read_record(normalised.key, stored | {name: value})


def _changed(stored: dict[bytes, bytes], track: int) -> Iterable[dict[bytes, bytes]]:
    """Hashes that only a later release, or damage, can make."""
    (name,) = (each for each in stored if len(each) > 1)
    value, common = stored[name], stored[b"0"]
    yield {name: value}  # without the common field
    yield {name[:-1] + bytes([80 * track]): value, b"0": common}  # a track that does not exist
    unknown = b"\x91" + b"\xd1" + (-1 - len(WORDS)).to_bytes(2, "big", signed=True)
    yield {name: value[:TIME_BYTES] + unknown, b"0": common}  # a word of a later table
    yield {name: value, b"0": unknown}
    yield {name: value[:TIME_BYTES], b"0": common}
    yield {name: value[:TIME_BYTES] + b"\x91\xc0", b"0": common}  # no code


def test_what_a_later_release_writes_is_refused() -> None:
    normalised = decode("acme", as_json(BASE | EXPIRED))
    for stored in _changed(as_hash([normalised], AT), 3):
        with pytest.raises(UnreadableRecordError):
            read_record(normalised.key, stored)


def test_the_arrival_has_room_until_the_limit_of_an_envelope() -> None:
    assert math.log2(10**16) < 8 * TIME_BYTES
