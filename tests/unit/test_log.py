"""No log line has a phone number."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import UndecodableError
from shared.log import mask
from shared.postback.normalise import decode

ROOT = Path(__file__).parents[2]
NUMBER = "15550100001"

LINES = [
    "{}",
    "to {}",
    "to={}",
    "to: {}",
    "to:{}",
    '"from": "{}"',
    '{{"to":"{}","from":"28444"}}',
    "{{'to': '{}'}}",
    "{{to:{}}}",
    "<to>{}</to>",
    "<TO>{}</TO><FROM>28444</FROM>",
    "to={}&from={}",
    "/lookup/{}?x=1",
    "tel:{};ext=1",
    "{}/TYPE=PLMN",
    "({}), [{}], <{}>",
    "sent to {}.",
    "{},{},{}",
    "{} {}\n{}",
    "b'{}'",
    "origin is {}, not MMS_MT",
    "2026-11-24 10:00:00,000 INFO mms-ingest: {}",
]


@given(
    st.sampled_from(LINES),
    st.sampled_from(["", "+", "00"]),
    st.text("0123456789", min_size=7, max_size=13),
)
def test_no_phone_number_is_left_in_a_line(line: str, prefix: str, number: str) -> None:
    masked = mask(line.replace("{}", prefix + number).replace("{{", "{").replace("}}", "}"))
    assert number not in masked
    assert number[-2:] in masked
    assert not re.search(r"\d{5}", masked.replace("28444", ""))


@pytest.mark.parametrize("length", range(7, 16))
def test_every_length_of_a_phone_number_is_masked(length: int) -> None:
    number = "123456789012345"[:length]
    for line in LINES:
        for prefix in ("", "+"):
            assert number not in mask(line.replace("{}", prefix + number))


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-24 10:00:00,000 INFO mms-worker: pid 123456",
        "listening on http://127.0.0.1:8080/postbacks",
        "no confirm within 2 s",
        "MMS_AMQP_URL is amqp://127.0.0.1:5672/",
        "message 3202611240900000000000f1e2d3c4b5a697887766554433",
        "123e4567-e89b-12d3-a456-426614174000",
        "tracking-id MMS_35674_abcdef",
        "short code 28444, operator 31003",
        "received at 1795514400000000",
    ],
)
def test_other_numbers_are_not_masked(line: str) -> None:
    assert mask(line) == line


@pytest.mark.parametrize(
    "body",
    [
        b'{"origin":"MMS_MT","code":"%b"}',
        b'{"origin":"MMS_MT","code":"N101","tracking-id":"T1","%b":{}}',
        b'{"origin":"MMS_MT","code":"N101","to":["%b"]}',
        b'{"origin":"MMS_MT","code":"N101","to":"%b"}',
        b'{"origin":"MMS_MT","code":"N101","to":"%b',
        b'{"origin":"MMS_MT","code":"N101","to":%bx}',
        b"<postback><origin>MMS_MT</origin><code>%b</code></postback>",
        b"<postback><to>%b</postback>",
        b"<postback><to>%b<a/></to></postback>",
        b"to=%b",
        b"%b",
        b'"%b"',
        b'["%b"]',
        b'<?xml version="1.0" encoding="%b"?><a/>',
    ],
)
def test_no_error_of_decoding_shows_a_phone_number_in_the_log(body: bytes) -> None:
    for number in (NUMBER, f"+{NUMBER}"):
        with pytest.raises(UndecodableError) as caught:
            decode("acme", body % number.encode())
        assert NUMBER not in mask(str(caught.value))


PROGRAM = f"""
import logging
from shared.log import configure

configure("INFO")
log = logging.getLogger("anybody")
number = "{NUMBER}"
log.debug("not shown")
log.info("arguments: %s", "+{NUMBER}")
log.warning("text: to={NUMBER}")
logging.getLogger("a.library").error({{"to": "{NUMBER}"}})
try:
    raise ValueError("raised for " + number)  # a newer Python's traceback shows this line
except ValueError:
    log.exception("with a traceback")
logging.getLogger("aiohttp.access").info("not shown either")
"""


def test_lines_of_every_logger_are_masked_on_standard_error() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    assert NUMBER not in done.stderr
    assert "not shown" not in done.stderr
    assert [line.count("***01") for line in done.stderr.splitlines() if "***" in line] == [1] * 4
    assert "Traceback" in done.stderr
