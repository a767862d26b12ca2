"""One batch can be followed from its answer to its event or dead letter; no log holds a number."""

import json
import os
import subprocess

import msgspec

from deploy.local.services import command
from shared.settings.settings import Settings
from tests.support import running
from tests.support.processes import Processes, environment, until

NUMBER = "15550100001"
DELIVERED = msgspec.json.encode(
    {"origin": "MMS_MT", "code": "N102", "tracking-id": "F1", "to": NUMBER, "status": "Delivered"}
)


def batch_lines(log: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in log.splitlines()]
    return [line for line in lines if "batch" in line]


async def test_the_batch_of_an_event_is_in_both_logs_once(
    settings: Settings, processes: Processes
) -> None:
    verbose = msgspec.structs.replace(
        settings, log_level="INFO,ingest=DEBUG,workers=DEBUG", log_format="json"
    )
    ingress = processes.start_ingest(verbose)
    worker = processes.start_worker(verbose)
    async with running.channel(settings) as channel:
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind("mms.events", "#")
        await running.post(settings, DELIVERED)
        event = await running.until(lambda: queue.get(no_ack=True, fail=False))
    assert event is not None
    assert event.correlation_id
    assert until(lambda: bool(batch_lines(worker.log())))
    (taken,) = batch_lines(ingress.log())
    (processed,) = batch_lines(worker.log())
    assert taken["batch"] == processed["batch"] == event.correlation_id
    assert (taken["postbacks"], taken["result"]) == (1, "confirmed")
    assert (processed["postbacks"], processed["events"]) == (1, 1)
    for log in (ingress.log(), worker.log()):
        assert NUMBER not in log


async def test_a_dead_letter_names_its_batch(settings: Settings, processes: Processes) -> None:
    verbose = msgspec.structs.replace(settings, log_level="ingest=DEBUG", log_format="json")
    ingress = processes.start_ingest(verbose)
    processes.start_worker(settings)
    await running.post(settings, b"no postback")
    assert until(lambda: bool(_admin(settings, "dead", "list", "--json")))
    (listed,) = map(json.loads, _admin(settings, "dead", "list", "--json").splitlines())
    (taken,) = batch_lines(ingress.log())
    assert listed["batch"] == taken["batch"]
    assert str(taken["batch"]) in _admin(settings, "dead", "show", listed["id"])
    for how in (("show", listed["id"], "--json"), ("export", "-")):
        assert json.loads(_admin(settings, "dead", *how))["batch"] == taken["batch"]


def _admin(settings: Settings, *arguments: str) -> str:
    """What `mms-admin` prints."""
    done = subprocess.run(
        (command("mms-admin"), *arguments),
        env=os.environ | environment(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout
