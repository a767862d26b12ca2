"""The Node worker of the benchmark does the work of ours: the same events are due, and equal."""

import itertools
import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import pytest

from shared.postback.codes import CODES
from shared.postback.envelope import Arrival
from shared.postback.normalise import decode
from shared.postback.postback import Rank
from shared.postback.record import Entry, Record
from tests.bench.peers.common import NODE_QUEUE
from tests.support.documents import ROOT
from workers.verdicts import Merged, Received, Verdict, due_events

PEER: Final = ROOT / "tests" / "bench" / "peers" / "node"

STATUSES: Final = (
    *("Delivered", "message sent/retrieved", " Success", "Message Sent/Expired", "Rejected"),
    *("Message Failed", "Not Supported", "NotSupported", "Unrecognized", "Unreachable"),
    *("Indeterminate", "Deferred", "Forwarded", "Sent", "Message Sent", "no word of ours", ""),
)
TIMES: Final = ("2026-11-24T10:00:42.5+02:00", "2026-11-24T07:59:00Z", "no time")
USUAL: Final = {
    "origin": "MMS_MT",
    "trackingid": "a1",
    "mms-id": 35674,
    "from": "28444",
    "to": "15550100001",
    "OPERATORID": "31003",
    "client-reference": "order/1",
    "something-else": "x",
}
RECEIVED_AT: Final = 1_764_000_000_123_000

# Reads JSON lines, each the bodies of one record in their order of arrival. Writes for each line
# the event that is due after the last one, or null.
SCRIPT: Final = """
import { createInterface } from 'node:readline'
import { decode, dueEvent, entryName, entryValue } from './postback.mjs'
for await (const line of createInterface({ input: process.stdin })) {
  const postbacks = JSON.parse(line).map((body) => decode('default', body))
  const record = postbacks.flatMap((each) => [entryName(each), entryValue(%d, each)])
  console.log(JSON.stringify(dueEvent(postbacks.at(-1), 'n', record, false)))
}
"""


@pytest.fixture(name="node")
def _node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("Node is not installed")
    done = subprocess.run((found, "--version"), check=True, capture_output=True, text=True)
    if int(done.stdout.lstrip("v").split(".")[0]) < 20:
        pytest.skip(f"the peer needs Node 20; this is {done.stdout.strip()}")
    return found


def test_the_same_events_are_due(node: str) -> None:
    sets = list(_sets())
    done = subprocess.run(
        (node, "--input-type=module", "--eval", SCRIPT % RECEIVED_AT),
        cwd=PEER,
        input="".join(json.dumps(bodies) + "\n" for bodies in sets),
        check=True,
        capture_output=True,
        text=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [_comparable(each) for each in found] == [_event(bodies) for bodies in sets]
    assert sum(each is not None for each in found) > len(found) // 3


def test_the_queue_has_one_name() -> None:
    assert f"QUEUE = '{NODE_QUEUE}'" in (PEER / "rabbitmq.mjs").read_text()


def _sets() -> Iterator[Sequence[str]]:
    """Each code with each status; each pair of codes with each pair of times.

    Times differ: at the same time the identities decide, and those of the peer are others.
    """
    for code, status in itertools.product(CODES, STATUSES):
        yield [_body(code, status, TIMES[1])]
    for codes, times in itertools.product(
        itertools.permutations(CODES, 2), itertools.permutations(TIMES, 2)
    ):
        tracks = {CODES[code].track == "template" for code in codes}
        if len(tracks) == 1:
            yield [_body(code, "Failed", time) for code, time in zip(codes, times, strict=True)]


def _body(code: str, status: str, timestamp: str) -> str:
    handset = {"handset": "SAMSUNG"} if code[0] == "N" else {}
    return json.dumps(USUAL | {"code": code, "status": status, "timestamp": timestamp} | handset)


def _event(bodies: Sequence[str]) -> dict[str, object] | None:
    """The event of our worker."""
    postbacks = [decode("default", body.encode()) for body in bodies]
    entries = [Entry(each.track, each.rank, RECEIVED_AT, each.postback) for each in postbacks]
    after = Record(postbacks[-1].key, tuple(sorted(entries, key=lambda each: each.rank)))
    last = Received(
        Arrival(RECEIVED_AT, "default", "", bodies[-1].encode()), postbacks[-1], redelivered=False
    )
    due = due_events(Merged([last], [Verdict.NEW], after))
    if not due:
        return None
    event = due[0].event
    return {"routingKey": event.routing_key, "type": event.type} | _without_identities(
        msgspec.json.decode(event.encode())
    )


def _comparable(found: dict[str, str] | None) -> dict[str, object] | None:
    if found is None:
        return None
    return {"routingKey": found["routingKey"], "type": found["type"]} | _without_identities(
        json.loads(found["body"])
    )


def _without_identities(event: dict[str, object]) -> dict[str, object]:
    """Identities are digests of another kind, of the same length."""
    identity = len(Rank.parse("0" * 45).identity)
    return event | {
        "id": len(str(event["id"])),
        "sequence": str(event["sequence"])[:-identity],
    }
