"""The real commands: a component that fails ends the process with a logged error."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.ports import free_port
from shared.settings.settings import Settings
from tests.support.admin_port import is_healthy
from tests.support.processes import environment, until

ROOT = Path(__file__).parents[2]

# Runs the command; after 1.5 s the named coroutine shows the named behaviour.
PROGRAM = """
import asyncio, sys
import ingest.batcher, ingest.http.connections, ingest.main, ingest.publisher
from aiohttp import web
import shared.process.watchdog
import workers.main, workers.worker

ingest.main.SHUTDOWN_NOTICE = 0.0
shared.process.watchdog.END_LIMIT = 3.0
shared.process.cli.stop_event.__defaults__ = (3.0,)

async def dies(*_):
    await asyncio.sleep(1.5)
    raise ZeroDivisionError

async def returns(*_):
    await asyncio.sleep(1.5)

async def is_cancelled(*_):
    await asyncio.sleep(1.5)
    raise asyncio.CancelledError

async def fails(*_):
    raise ZeroDivisionError

async def ignores_cancel(*_):
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

async def blocks(*_):
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        import time
        time.sleep(60)

def logs_its_call(owner, name):
    step = getattr(owner, name)

    def logged(*arguments):
        print(name, "was called", file=sys.stderr)
        return step(*arguments)

    setattr(owner, name, logged)

logs_its_call(ingest.batcher.Batcher, "stop")
logs_its_call(ingest.main.Spool, "aclose")
component, behaviour = sys.argv[1:3]
owners = {
    "publisher": (ingest.publisher.Publisher, "run"),
    "batcher": (ingest.batcher.Batcher, "_commit_batches"),
    "sweep": (ingest.batcher.Batcher, "_sweep_deadlines"),
    "drain": (ingest.main, "drain"),
    "admin": (web.AppRunner, "cleanup"),
    "public": (web.ServerRunner, "cleanup"),
    "consumer": (workers.worker.Worker, "run"),
    "connections": (ingest.http.connections.Connections, "close_slow"),
}
setattr(*owners[component], globals()[behaviour])
command = workers.main if component == "consumer" else ingest.main
sys.argv = ["mms-worker" if component == "consumer" else "mms-ingest"]
command.main()
"""


@contextlib.contextmanager
def started(settings: Settings, component: str, behaviour: str) -> Iterator[subprocess.Popen[str]]:
    """The process; it is killed if it still runs at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, component, behaviour],
        cwd=ROOT,
        env=os.environ | environment(settings),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def alone(tmp_path: Path) -> Settings:
    """Settings of an ingress that spools, because it has no RabbitMQ."""
    return Settings(
        amqp_url="amqp://guest:guest@127.0.0.1:1/",
        ingest_port=free_port(),
        admin_port=free_port(),
        spool_path=str(tmp_path / "spool.db"),
    )


@pytest.mark.parametrize(
    ("component", "behaviour"),
    [
        *((each, "dies") for each in ("publisher", "batcher", "drain", "connections", "consumer")),
        ("drain", "returns"),
        ("consumer", "returns"),
        ("publisher", "is_cancelled"),
        ("consumer", "is_cancelled"),
    ],
)
def test_a_component_that_ends_ends_the_process(
    alone: Settings, component: str, behaviour: str
) -> None:
    with started(alone, component, behaviour) as process:
        _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    name = {"connections": "connection sweep"}.get(component, component)
    assert f"the {name} ended unexpectedly" in said
    assert ("ZeroDivisionError" in said) == (behaviour == "dies")
    assert "Timeout" not in said  # not ended by the watchdog


def test_the_batcher_fails_when_its_sweep_fails(alone: Settings) -> None:
    with started(alone, "sweep", "dies") as process:
        _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "the batcher ended unexpectedly" in said


@pytest.mark.parametrize("behaviour", ["ignores_cancel", "blocks"])
def test_sigterm_ends_the_process_whatever_hangs(alone: Settings, behaviour: str) -> None:
    with started(alone, "drain", behaviour) as process:
        assert until(lambda: is_healthy(alone.admin_port), within=30)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "Timeout" in said
    assert ("in blocks" in said) == (behaviour == "blocks")  # the stack of the thread that hangs
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("step", ["admin", "public"])
def test_a_failed_step_of_the_clean_up_does_not_skip_the_others(alone: Settings, step: str) -> None:
    with started(alone, step, "fails") as process:
        assert until(lambda: is_healthy(alone.admin_port), within=30)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "ZeroDivisionError" in said
    assert "stop was called" in said  # the batcher finishes its batches
    assert "aclose was called" in said  # the spool is closed
    assert "Timeout" not in said  # the batcher and the drain ended too
