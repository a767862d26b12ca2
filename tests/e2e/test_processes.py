"""`--processes N` with the real commands: restarts, SIGTERM, one admin port."""

import asyncio
import os
import signal
import socket
import urllib.request
from pathlib import Path

import msgspec

from deploy.local.ports import free_port
from deploy.local.services import Service
from ingest.simulate import lifecycles, provider, verify
from ingest.simulate.ledger import Ledger
from ingest.simulate.options import Options
from shared.settings.settings import Settings
from tests.support.processes import Processes, metric, until

CONCURRENCY = 64


async def test_children_die_under_load_and_nothing_is_lost(
    settings: Settings, processes: Processes
) -> None:
    ingress = processes.start_ingest(settings, "--processes", "3")
    worker = processes.start_worker(settings, "--processes", "2")
    assert until(lambda: ready(ingress) == 3 and ready(worker) == 2)
    before = children(ingress) + children(worker)
    assert len(before) == 5
    messages = lifecycles.generate(4000)
    ledger = Ledger(messages.postbacks)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(
            provider.send(
                [f"http://127.0.0.1:{settings.ingest_port}/postbacks"],
                messages,
                Options(rate=200.0, resend_after=1.0, concurrency=CONCURRENCY),
                ledger=ledger,
                stop=stop,
            )
        )
        await asyncio.sleep(1)
        os.kill(before[0], signal.SIGKILL)
        os.kill(before[3], signal.SIGKILL)
        await asyncio.to_thread(until, lambda: not runs(before[0]) and not runs(before[3]))
        back = await asyncio.to_thread(until, lambda: ready(ingress) == 3 and ready(worker) == 2)
        assert back, worker.log()
        await asyncio.sleep(1)
        # Requests in progress in the killed process got no response; no other request failed.
        assert set(ledger.attempts) <= {"200", "no connection"}
        assert ledger.attempts["no connection"] < CONCURRENCY
        await asyncio.to_thread(ingress.stop)
        stop.set()
    assert set(ledger.attempts) <= {"200", "no connection"}
    assert not any(map(runs, before[:3]))
    assert "Traceback" not in ingress.log()

    report = await verify.verify(settings, messages, ledger, settle=20.0)
    assert ledger.answered > 300
    assert not report.lost
    assert not report.wrong
    assert metric(worker, "mms_process_restarts_total") == 1
    last = children(worker)
    worker.stop()
    assert not any(map(runs, last))
    assert "Traceback" not in worker.log()


def test_one_admin_port_serves_all(settings: Settings, processes: Processes) -> None:
    ingress = processes.start_ingest(settings, "--processes", "2")
    assert until(lambda: ready(ingress) == 2), ingress.log()
    for at in range(40):  # a new connection each: the kernel spreads them
        post(settings, at)
    assert metric(ingress, "mms_ingest_answers_total", status="200") == 40
    assert all(metric(ingress, "mms_ingest_answers_total", process=n) > 0 for n in "01")
    assert metric(ingress, "mms_processes_running") == 2
    assert ingress.ask("/healthz")[0] == 200
    assert until(lambda: "process 1: rabbitmq: ok\n" in ingress.ask("/readyz")[1])


def test_children_share_a_spool(settings: Settings, processes: Processes) -> None:
    away = msgspec.structs.replace(settings, amqp_url=f"amqp://127.0.0.1:{free_port()}/")
    ingress = processes.start_ingest(away, "--processes", "2")
    assert until(lambda: ready(ingress) == 2)
    for at in range(40):
        post(settings, at)
    assert all(metric(ingress, "mms_ingest_spooled_total", process=n) > 0 for n in "01")
    ingress.stop()

    again = processes.start_ingest(settings, "--processes", "2")
    worker = processes.start_worker(settings)
    assert until(lambda: metric(worker, "mms_worker_postbacks_total", result="new") == 40)
    assert until(lambda: metric(again, "mms_ingest_spool_postbacks") == 0)


def test_children_end_when_their_parent_is_killed(settings: Settings, processes: Processes) -> None:
    ingress = processes.start_ingest(settings, "--processes", "2")
    pids = children(ingress)
    assert len(pids) == 2
    assert ingress.pid is not None
    os.kill(ingress.pid, signal.SIGKILL)
    assert until(lambda: not any(map(runs, pids)), within=5)


def test_bad_settings_end_the_parent_at_once(settings: Settings, processes: Processes) -> None:
    spoilt = msgspec.structs.replace(settings, spool_path="/dev/null/spool.db")
    ingress = processes.start_ingest(spoilt, "--processes", "2", wait=False)
    assert until(lambda: not ingress.is_alive())
    assert "MMS_SPOOL_PATH" in ingress.log()


def test_a_port_is_not_shared_with_another_program(
    settings: Settings, processes: Processes
) -> None:
    with socket.create_server(("127.0.0.1", settings.ingest_port), reuse_port=True):
        ingress = processes.start_ingest(settings, "--processes", "2", wait=False)
        assert until(lambda: not ingress.is_alive())
    assert "change MMS_INGEST_PORT" in ingress.log()


def ready(service: Service) -> int:
    """How many child processes say that they are ready."""
    lines = service.ask("/readyz")[1].splitlines()
    wrong = {line.partition(":")[0] for line in lines if ": not ready: " in line}
    return len({line.partition(":")[0] for line in lines} - wrong)


def children(service: Service) -> list[int]:
    pid = service.pid
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def runs(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def post(settings: Settings, number: int) -> None:
    body = b'{"origin":"MMS_MT","code":"N101","tracking-id":"shared-%d"}' % number
    url = f"http://127.0.0.1:{settings.ingest_port}/postbacks"
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=10) as answer:
        assert answer.status == 200
