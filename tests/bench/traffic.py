"""The traffic: messages with two postbacks each, N101 and N102, with all the usual fields.

All servers get the same bodies: JSON, about 400 bytes. The second of each pair decides the outcome
of the message, so half of all postbacks are terminal and lead to an event.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from shared.postback.envelope import Arrival

PATH: Final = "/postbacks"

_TEMPLATE: Final = (
    '{"origin":"MMS_MT","code":"CODE","sent-as":"MMS","status":"STATUS",'
    '"status-details":"DETAILS","mms-id":"35674","from":"28444","to":"1555010NUMBER",'
    '"tracking-id":"ID","operator-id":"OPERATOR","operator-name":"Verizon Wireless",'
    '"timestamp":"2026-11-24T10:00:SECONDZ",HANDSET'
    '"client-reference":"order/REFERENCE","campaign-ref":"campaign 7","aggregator-id":"12"PAD}'
)
_SENT: Final = {
    "CODE": "N101",
    "STATUS": "Sent",
    "DETAILS": "MMS sent to carrier",
    "SECOND": "00",
    "HANDSET": "",
}
_DELIVERED: Final = {
    "CODE": "N102",
    "STATUS": "Delivered",
    "DETAILS": "Retrieved by handset",
    "SECOND": "42",
    "HANDSET": '"handset":"SAMSUNG-SM-G960U",',
}


def _formats(pad: int) -> tuple[str, str]:
    """Both bodies as %-formats of number, operator, id and reference."""
    extra = f',"image-name":"{"x" * pad}"' if pad else ""
    formats = []
    for words in (_SENT, _DELIVERED):
        text = _TEMPLATE
        for name, value in words.items():
            text = text.replace(name, value)
        text = text.replace("NUMBER", "%04d").replace("OPERATOR", "%s").replace("PAD", extra)
        formats.append(text.replace("REFERENCE", "%s").replace('"ID"', '"%s"'))
    return formats[0], formats[1]


_FORMATS: Final = _formats(0)

OPERATOR: Final = "31003"


def body(number: int, run: str, operator: str = OPERATOR) -> bytes:
    """The body of postback `number`: even ones are N101 and odd ones N102 of the same message."""
    message = number >> 1
    tracking_id = f"{run}-{message:07d}"
    return (_FORMATS[number & 1] % (message % 10_000, tracking_id, operator, tracking_id)).encode()


def bodies(count: int, run: str) -> Iterator[bytes]:
    """The first `count` postbacks of a run."""
    return (body(number, run) for number in range(count))


def arrival(raw: bytes, received_at: int) -> Arrival:
    """A body as the ingress publishes it."""
    return Arrival(received_at, "default", "application/json", raw)


def arrivals(count: int, run: str, received_at: int) -> Iterator[Arrival]:
    """The first `count` postbacks of a run as the ingress publishes them."""
    return (arrival(each, received_at) for each in bodies(count, run))


_LUA: Final = """\
-- The traffic of wrk: the same bodies, and each message has an id of its own.
local formats = {{ [==[{sent}]==], [==[{delivered}]==] }}
local headers = {{ ["Content-Type"] = "application/json" }}
local run, count, threads = "{run}", -1, 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function request()
  count = count + 1
  local message = math.floor(count / 2)
  local id = string.format("%s-%d-%07d", run, number, message)
  local format = formats[count % 2 + 1]
  local body = string.format(format, message % 10000, id, "{operator}", id)
  return wrk.format("POST", nil, headers, body)
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\\n{{"requests":%d,"seconds":%f,"refused":%d,"broken":%d,"p50":%f,"p99":%f,"p999":%f}}\\n',
    summary.requests, summary.duration / 1e6, e.status, e.connect + e.read + e.write + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3))
end
"""


def write_lua(path: Path, run: str, pad: int = 0) -> None:
    """Write wrk's script.

    Args:
        pad: characters of one more field, for larger bodies; the ingress does not decode them.
    """
    # Number, id, operator and reference are Lua's %-formats too, in the order of `_TEMPLATE`.
    sent, delivered = _formats(pad)
    path.write_text(_LUA.format(sent=sent, delivered=delivered, run=run, operator=OPERATOR))
