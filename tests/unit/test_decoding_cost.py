"""What decoding a hostile body costs: steps, memory and what stays behind.

Steps are calls that Python makes, counted; time would depend on the machine.
"""

import encodings
import gc
import subprocess
import sys
from collections.abc import Callable
from typing import Final

import pytest

from shared.errors import OtherOriginError, UndecodableError
from shared.postback.dead_letter import Reason
from shared.postback.dialects.fields import MAX_DIGITS, MAX_FIELDS
from shared.postback.envelope import Arrival
from shared.postback.normalise import decode
from shared.postback.passthrough import passthrough_of

SIZE: Final = 64 * 1024
MOST_STEPS: Final = 6000
"""Calls for any body of `SIZE`. Without limits the worst ones took 40,000 to 150,000."""

OURS: Final = b'"origin":"MMS_MT","code":"N102","tracking-id":"T1"'
OTHER: Final = b'"origin":"SMS_MO"'


def filled(before: bytes, unit: bytes, after: bytes = b"") -> bytes:
    """A unit repeated until the body has `SIZE` bytes at most."""
    return before + unit * ((SIZE - len(before) - len(after)) // len(unit)) + after


def numbered(before: bytes, unit: bytes, after: bytes = b"") -> bytes:
    """The same with a number in each unit."""
    units: list[bytes] = []
    left = SIZE - len(before) - len(after)
    while (left := left - len(unit % len(units))) >= 0:
        units.append(unit % len(units))
    return before + b"".join(units) + after


def xml(unit: bytes, *, distinct: bool = False, inside: bytes = b"") -> bytes:
    fill = numbered if distinct else filled
    end = b"</a></postback>" if inside else b"</postback>"
    return fill(b"<postback>" + inside, unit, end)


WORST: Final[dict[str, bytes]] = {
    "percent signs for a name": filled(b"", b"%", b"=x"),
    "a name that is encoded": filled(b"", b"%41", b"="),
    "pairs of a form": filled(b"", b"a=&"),
    "pairs with encoded names": filled(b"", b"%41=&"),
    "an encoded form": filled(b"XML=", b"%3C"),
    "a form of percent signs": filled(b"XML=%3C", b"%"),
    "a form of backslashes": filled(b"XML=%3C", b"\\"),
    "empty elements": xml(b"<a/>"),
    "elements of a namespace": xml(b"<a:b/>"),
    "distinct elements": xml(b"<a%x/>", distinct=True),
    "elements with a text": xml(b"<a>b</a>"),
    "elements in a field": xml(b"<b/>", inside=b"<a>"),
    "elements with an attribute": xml(b"<a b=''/>"),
    "attributes": numbered(b"<postback", b" a%x=''", b"/>"),
    "character references": xml(b"&#13;", inside=b"<a>"),
    "ends of lines": xml(b"\r\n", inside=b"<a>"),
    "sections": xml(b"<![CDATA[]]>", inside=b"<a>"),
    "UTF-16": xml(b"<a/>")[: SIZE // 2].decode().encode("utf-16"),
    "keys": numbered(b"{", b'"%x":1,', b'"z":1}'),
    "keys of empty texts": numbered(b"{", b'"%x":"",', b'"z":1}'),
    "spellings of one key": filled(b"{", b'"-a":1,"_a":2,', b'"z":1}'),
    "arrays": filled(b"{" + OURS + b',"a":[', b"[],", b"1]}"),
    "objects": filled(b"{" + OURS + b',"a":[', b'{"a":1},', b"1]}"),
    "deep objects": filled(b"", b'{"a":'),
    "one number": filled(b'{"a":', b"9", b"}"),
    "long numbers": filled(b"{" + OURS, b',"a":' + b"9" * 4290, b"}"),
    "numbers at the limit": numbered(b"{" + OURS, b',"a%d":' + b"9" * MAX_DIGITS, b"}"),
    "arrays of another origin": filled(b"{" + OTHER + b',"a":[', b"[],", b"1]}"),
    "deep arrays of another origin": b"{" + OTHER + b',"a":' + b"[" * 900 + b"]" * 900 + b"}",
    "texts of another origin": numbered(b"{" + OTHER, b',"a%03d":"' + b"x" * 250 + b'"', b"}"),
}


def attempt(body: bytes) -> str:
    """Decode as a worker does; why it is refused, else what it is."""
    try:
        decode("acme", body)
    except OtherOriginError as other:
        try:
            passthrough_of(Arrival(1, "acme", "", body), other.fields).encode()
        except UndecodableError as error:
            return error.reason
        return "passed on"
    except UndecodableError as error:
        return error.reason
    return "ours"


def steps(work: Callable[[], object]) -> int:
    """How many calls it makes, of functions in Python and in C."""
    made = 0

    def profile(_frame: object, event: str, _argument: object) -> None:
        nonlocal made
        made += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return made


@pytest.mark.parametrize("body", WORST.values(), ids=WORST)
def test_no_body_takes_many_steps(body: bytes) -> None:
    assert len(body) <= SIZE + 2
    assert steps(lambda: attempt(body)) < MOST_STEPS


@pytest.mark.parametrize(
    "body",
    [
        b"{" + b",".join(b'"a%d":1' % n for n in range(MAX_FIELDS + 1)) + b"}",
        b"<postback>" + b"<a/>" * MAX_FIELDS + b"</postback>",
        b"<postback><a>" + b"<b/>" * MAX_FIELDS + b"</a></postback>",
        b"a=1&" * MAX_FIELDS + b"XML=<postback/>",
        b'{"a":1' + b"0" * MAX_DIGITS + b"}",
        b'{"a":[-1' + b"0" * MAX_DIGITS + b"]}",
    ],
)
def test_over_a_limit_a_body_is_too_long(body: bytes) -> None:
    assert attempt(body) == Reason.TOO_LONG


def test_at_its_limits_a_body_is_read() -> None:
    keys = b",".join(b'"a%d":1' % number for number in range(MAX_FIELDS - 1))
    assert attempt(b"{" + OTHER + b"," + keys + b"}") == "passed on"
    elements = b"<origin>SMS_MO</origin>" + b"<a/>" * (MAX_FIELDS - 2)
    assert attempt(b"<postback>" + elements + b"</postback>") == "passed on"
    digits = b"9" * MAX_DIGITS
    assert attempt(b"{" + OURS + b',"handset":' + digits + b"}") == "ours"
    assert attempt(b"{" + OURS + b',"status-details":"x ' + b"9" * 4000 + b'"}') == "ours"


@pytest.mark.parametrize("body", WORST.values(), ids=WORST)
def test_nothing_waits_for_the_collector_of_cycles(body: bytes) -> None:
    attempt(body)
    gc.collect()
    gc.disable()
    try:
        attempt(body)
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_names_of_encodings_are_not_kept() -> None:
    attempt(b'<?xml version="1.0" encoding="latin1"?><postback/>')
    before = set(encodings._cache)  # noqa: SLF001 (it is private)
    for number in range(50):
        for name in (b"cp437", b"koi8-r", b"x-%d" % number):
            attempt(b'<?xml version="1.0" encoding="%b"?><postback/>' % name)
            text = f'<?xml version="1.0" encoding="{name.decode()}"?><postback/>'
            attempt(text.encode("utf-16"))
    assert set(encodings._cache) == before  # noqa: SLF001


HOSTILE: Final = """
import gc
from pathlib import Path
from tests.unit.test_decoding_cost import WORST, attempt

gc.disable()  # what is left to it, a worker keeps for minutes
peaks = []
for _ in range(3):
    for number in range(40):
        for body in WORST.values():
            attempt(body)
        attempt(b'<?xml version="1.0" encoding="x-%d"?><postback/>' % number)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peaks.append(int(status["VmHWM"].split()[0]))
print(peaks[0], peaks[-1])
"""


def test_memory_does_not_grow_with_hostile_bodies() -> None:
    """1,200 of each kind's bodies more, 75 MB of XML among them, and no megabyte more in memory."""
    done = subprocess.run(
        [sys.executable, "-c", HOSTILE], capture_output=True, text=True, timeout=300, check=True
    )
    first, last = map(int, done.stdout.split())
    assert last - first < 2 * 1024, f"{first} KiB, then {last} KiB"
    assert last < 128 * 1024
