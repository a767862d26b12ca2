"""`make run`: its greeting, its curl line, its events, its end."""

import http.client
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from deploy.local.child import running
from deploy.local.servers import RabbitMQ
from deploy.local.services import command
from shared.postback.postback import Key
from shared.settings.settings import Settings
from tests.support.live import Live
from tests.support.old_dead import declare_old, publish, taken
from tests.support.processes import until
from tests.support.running import channel
from workers.store import Store

Start = Callable[..., Live]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a `make run` in the test's folder, with these variables."""
    runs: list[Live] = []

    def make(**environment: str) -> Live:
        runs.append(Live("deploy.local.run", tmp_path / "var", environment))
        return runs[-1]

    yield make
    for run in runs:
        run.end()


async def test_a_first_and_a_second_run(start: Start, tmp_path: Path) -> None:
    first = start()
    tracking_id = _paste(first.line("curl"))
    event = first.line(f"message.delivered +{tracking_id}", within=10)
    assert "Nokia 6230" in event
    assert "12065550123" not in event
    children = _descendants(first.pid)
    assert len(children) >= 5, "RabbitMQ, epmd, Redis, an ingress and a worker"
    environment = (tmp_path / "var" / "env").read_text()

    assert first.interrupt() == 0, first.said
    assert not [pid for pid in children if _runs(pid)]

    second = start()
    second.line("Ctrl-C stops everything")
    assert (tmp_path / "var" / "env").read_text() == environment
    url = re.search(r"MMS_REDIS_URL=(\S+)", environment)
    assert url is not None
    store = Store(Settings(redis_url=url[1]))
    record = await store.record(Key("message", "default", tracking_id))
    await store.aclose()
    assert record is not None
    assert second.interrupt() == 0, second.said


def test_it_starts_no_servers_when_settings_name_some(
    start: Start, settings: Settings, tmp_path: Path
) -> None:
    run = start(MMS_AMQP_URL=settings.amqp_url, MMS_REDIS_URL=settings.redis_url)
    tracking_id = _paste(run.line("curl"))
    run.line(tracking_id, within=10)
    environment = dict(re.findall(r"export (\w+)=(\S+)", (tmp_path / "var" / "env").read_text()))
    doctor = subprocess.run(
        (command("mms-admin"), "doctor", "--json"),
        env=os.environ | environment,
        check=False,
        capture_output=True,
        text=True,
    ).stdout
    looked_at = [json.loads(line)["check"] for line in doctor.splitlines()]
    assert sum(check.startswith("process 127.0.0.1:") for check in looked_at) == 2, looked_at
    children = _descendants(run.pid)
    assert sorted(_name(pid) for pid in children) == ["mms-ingest", "mms-worker"]
    assert not any("starting RabbitMQ" in line or "starting Redis" in line for line in run.said)

    worker = next(pid for pid in children if _name(pid) == "mms-worker")
    os.kill(worker, signal.SIGKILL)
    run.line("mms-worker ended with status -9")
    run.line("mms-worker is ready")
    assert run.interrupt() == 0, run.said


def test_a_second_run_in_the_same_folder_is_an_error(start: Start, settings: Settings) -> None:
    servers = {"MMS_AMQP_URL": settings.amqp_url, "MMS_REDIS_URL": settings.redis_url}
    first = start(**servers)
    first.line("Ctrl-C stops everything")
    second = start(**servers)
    second.line("already running", within=10)
    assert second.wait() == 1
    assert first.interrupt() == 0, first.said


def test_a_failure_shows_the_log(start: Start, settings: Settings, tmp_path: Path) -> None:
    run = start(
        MMS_AMQP_URL=settings.amqp_url, MMS_REDIS_URL=settings.redis_url, MMS_SPOOL_PATH="/dev/null"
    )
    assert run.wait() == 1
    said = "".join(run.said)
    assert "Not running: mms-ingest ended at once" in said
    assert str(tmp_path / "var" / "log" / "mms-ingest.log") in said


async def test_the_data_of_an_earlier_release_is_upgraded(start: Start, tmp_path: Path) -> None:
    """Its `mms.dead` has other arguments. It is declared again, and its dead letters stay."""
    server = RabbitMQ(tmp_path / "var" / "rabbitmq")
    with running(server):
        async with channel(Settings(amqp_url=server.url)) as opened:
            await declare_old(opened, Settings())
            await publish(opened, b"one", b"two")
    start().line("Ctrl-C stops everything")
    environment = (tmp_path / "var" / "env").read_text()
    url = re.search(r"MMS_AMQP_URL=(\S+)", environment)
    assert url is not None
    assert set(await taken(Settings(amqp_url=url[1]))) == {b"one", b"two"}


def _paste(line: str) -> str:
    """Run this curl line; return the tracking-id that it sent."""
    words = shlex.split(line)
    tracking_id = re.search(r'"tracking-id": "([^"]+)"', words[-1])
    assert tracking_id is not None
    if shutil.which("curl"):
        answer = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        assert answer.startswith("HTTP/1.1 200 ")
    else:
        url = urlsplit(words[2])
        connection = http.client.HTTPConnection(url.netloc)
        connection.request("POST", url.path, words[-1])
        assert connection.getresponse().status == http.HTTPStatus.OK
        connection.close()
    return tracking_id[1]


def _descendants(pid: int) -> list[int]:
    """The children of a process, their children, and so on."""
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], check=True, capture_output=True, text=True
    )
    parents = [tuple(map(int, line.split())) for line in listing.stdout.splitlines()]
    found = [child for child, parent in parents if parent == pid]
    return found + [deeper for child in found for deeper in _descendants(child)]


def _name(pid: int) -> str:
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return next(name for part in command if (name := Path(part.decode()).name).startswith("mms-"))


def _runs(pid: int) -> bool:
    """Whether it runs; a zombie does not."""

    def gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    return not until(gone, within=2)
