"""Data of an earlier release is read, and data of a later release does no harm.

`samples/format-<n>` holds bytes as a release wrote them. They are never generated again: a test
that fails here means that existing queues, archives, spools or Redis data cannot be read any more.
"""

import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from ingest.spool.spool import Spool
from shared.errors import SettingsError, UndecodableError, UnreadableRecordError
from shared.postback import envelope, formats
from shared.postback.codes import Outcome, Track
from shared.postback.envelope import Arrival
from shared.postback.normalise import decode
from shared.postback.postback import Key, Postback
from shared.postback.stored import TIME_BYTES, format_1, read_record
from workers.consumer import Delivery
from workers.decode import Decoded, decode_batch
from workers.store import _merged
from workers.verdicts import Merged, Received, Unmergeable

SAMPLES = Path(__file__).parent / "samples"
BATCH = (SAMPLES / "format-1" / "batch.msgpack").read_bytes()
RECORD = {
    name.encode(): bytes.fromhex(value)
    for name, value in json.loads((SAMPLES / "format-1" / "record.json").read_text()).items()
}
RECORD_2 = {
    bytes.fromhex(name): bytes.fromhex(value)
    for name, value in json.loads((SAMPLES / "format-2" / "record.json").read_text()).items()
}
KEY = Key("message", "default", "SAMPLE-1")
AT = 1_795_486_200_000_000

Change = Callable[[list[object]], list[object]]


def test_a_batch_of_format_1() -> None:
    arrivals = envelope.decode(BATCH)
    assert [each.received_at for each in arrivals] == [AT, AT + 1, AT + 2, AT + 3]
    assert {each.source for each in arrivals} == {"default"}
    assert arrivals[1].content_type == "text/xml"
    assert arrivals[3].body == b"not a postback \xff\x00"
    with pytest.raises(UndecodableError):
        decode("default", arrivals[3].body)


@pytest.mark.parametrize("stored", [RECORD, RECORD_2], ids=["format 1", "format 2"])
def test_a_record(stored: dict[bytes, bytes]) -> None:
    known = read_record(KEY, stored)
    assert known is not None
    assert known.tracks() == [Track.MESSAGE, Track.DISCOVERY]
    message = known.known(Track.MESSAGE)
    assert message.outcome is Outcome.DELIVERED
    assert (len(known.entries), known.dropped) == (3, True)
    assert (message.handset, message.client_reference) == ("Nokia 6230", "order-7")
    assert message.sent_at == "2026-11-24T10:00:00Z"
    assert message.completed_at == "2026-11-24T18:00:07.250000Z"
    assert known.of(Track.MESSAGE)[0].postback.extra == {"new-field": "kept"}


def test_both_samples_are_the_same_record() -> None:
    assert read_record(KEY, RECORD) == read_record(KEY, RECORD_2)


def test_identities_and_ranks_are_those_of_format_1() -> None:
    """Otherwise a postback that is resent after the upgrade would be new, and publish an event.

    Only a postback with a hyphen in the name of an unknown field has a new identity. Legacy XML
    wrote such names without the hyphen, so it had two identities before.
    """
    written = {}
    for arrival in envelope.decode(BATCH)[:3]:
        normalised = decode(arrival.source, arrival.body)
        name, value = format_1(arrival.received_at, normalised)
        written[name] = value
        assert normalised.key == KEY
    renamed = next(name for name, value in RECORD.items() if b"new-field" in value)
    same = {name: value for name, value in RECORD.items() if name not in (b"dropped", renamed)}
    assert len(same) == 2
    assert same.items() <= written.items()
    (changed,) = written.keys() - same.keys()
    assert changed[:22] == renamed[:22], "the rank's phase and time"


def shorter(fields: list[object]) -> list[object]:
    """As an earlier release wrote it, without the last field."""
    return fields[:-1]


def longer(fields: list[object]) -> list[object]:
    """As a later release may write it, with two more fields."""
    return [*fields, "new", {"more": [1]}]


@pytest.mark.parametrize("change", [shorter, longer])
def test_a_record_of_format_2_with_fewer_or_more_fields_at_the_end(change: Change) -> None:
    def changed(packed: bytes, count: int) -> bytes:
        values = msgspec.msgpack.decode(packed)
        return msgspec.msgpack.encode(change(values + [None] * (count - len(values))))

    stored = {
        name: changed(value, 12)
        if len(name) == 1
        else value[:TIME_BYTES] + changed(value[TIME_BYTES:], 8)
        for name, value in RECORD_2.items()
        if name != b"dropped"
    }
    known = read_record(KEY, stored)
    assert known is not None
    assert known.known(Track.MESSAGE).to == "15550100001"


@pytest.mark.parametrize("change", [shorter, longer])
def test_a_record_with_fewer_or_more_fields_at_the_end(change: Change) -> None:
    changed = {
        name: value
        if name == b"dropped"
        else value[:16] + msgspec.msgpack.encode(change(msgspec.msgpack.decode(value[16:])))
        for name, value in RECORD.items()
    }
    known = read_record(KEY, changed)
    assert known is not None
    assert known.known(Track.MESSAGE).client_reference == "order-7"


def test_a_batch_with_more_fields() -> None:
    arrays = [longer(each) for each in msgspec.msgpack.decode(BATCH, type=list[list[object]])]
    assert envelope.decode(msgspec.msgpack.encode(arrays)) == envelope.decode(BATCH)


def test_stored_fields_keep_their_order() -> None:
    """With a field in another place, every stored postback would be decoded wrongly."""
    assert Postback.__struct_fields__[:20] == (
        *("code", "status", "status_details", "sent_as", "mms_id", "from_", "to"),
        *("operator_id", "operator_name", "timestamp", "handset", "client_reference"),
        *("campaign_ref", "aggregator_id", "audio_name", "video_name", "image_name"),
        *("from_mask", "os", "extra"),
    )
    assert Arrival.__struct_fields__[:4] == ("received_at", "source", "content_type", "body")
    later = [field for struct in (Postback, Arrival) for field in msgspec.structs.fields(struct)]
    optional = [field.name for field in later if not field.required]
    assert {"code", "received_at", "source", "content_type", "body"}.isdisjoint(optional)
    assert len(later) - len(optional) == 5, "a new field needs a default"


NEWER = bytes([formats.MARK, formats.FORMAT + 1]) + b"whatever"


def test_a_batch_of_a_newer_format_is_kept_as_a_dead_letter() -> None:
    decoded = Decoded([], [], [])
    delivery = Delivery(1, envelope.CONTENT_TYPE, NEWER, redelivered=False)
    assert decode_batch(delivery, decoded) is None
    (dead_letter,) = decoded.dead
    assert dead_letter.body == NEWER
    assert dead_letter.content_type == envelope.CONTENT_TYPE
    assert "newer than this release reads" in dead_letter.error


@pytest.mark.parametrize(
    "entry",
    [NEWER, msgspec.msgpack.encode(["N999", None])],
    ids=["a newer format", "a code of a newer release"],
)
def test_a_record_of_a_newer_release_does_not_stop_the_worker(entry: bytes) -> None:
    name = next(name for name in RECORD if name.startswith(b"d"))
    held = RECORD | {name: RECORD[name][:16] + entry}
    with pytest.raises(UnreadableRecordError):
        read_record(KEY, held)
    arrival = envelope.decode(BATCH)[1]
    received = Received(arrival, decode("default", arrival.body), redelivered=False)
    result = _merged(KEY, [received], [b"n", [each for pair in held.items() for each in pair]])
    assert isinstance(result, Unmergeable)
    assert "cannot be read" in result.error
    fine = _merged(KEY, [received], [b"n", [each for pair in RECORD.items() for each in pair]])
    assert isinstance(fine, Merged)


async def test_a_spool_of_the_first_release_and_of_a_newer_one(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    first = Spool(path, 2**20)
    await first.add(BATCH, 4)
    await first.aclose()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (formats.FORMAT,)
        database.execute("PRAGMA user_version = 0")  # release 0.1.0 did not write it
    database.close()
    second = Spool(path, 2**20)
    assert [each.encoded for each in await second.oldest(9)] == [BATCH]
    await second.aclose()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(f"PRAGMA user_version = {formats.FORMAT + 1}")
    database.close()
    with pytest.raises(SettingsError, match="newer release"):
        Spool(path, 2**20)
