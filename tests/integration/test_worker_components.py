"""The real `mms-worker`: a component that ends ends the process, and SIGTERM always ends it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.ports import free_port
from shared.settings.settings import Settings
from tests.support.admin_port import is_healthy
from tests.support.processes import environment, until

ROOT = Path(__file__).parents[2]

# Runs the command; after 0.5 s the named coroutine does what the second argument says.
PROGRAM = """
import asyncio, sys
from aiohttp import web
import shared.process.watchdog, workers.main, workers.probes, workers.worker

shared.process.watchdog.END_LIMIT = 3.0
shared.process.cli.stop_event.__defaults__ = (3.0,)

async def dies(*_):
    await asyncio.sleep(0.5)
    raise ZeroDivisionError

async def returns(*_):
    await asyncio.sleep(0.5)

async def is_cancelled_by_a_library(*_):
    await asyncio.sleep(0.5)
    raise asyncio.CancelledError

async def fails(*_):
    raise ZeroDivisionError

async def deaf(*_):
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

component, behaviour = sys.argv[1:3]
owners = {
    "consumer": (workers.worker.Worker, "run"),
    "window": (workers.worker.Worker, "_consume"),
    "probe of Redis": (workers.probes.RedisProbe, "run"),
    "admin": (web.AppRunner, "cleanup"),
    "store": (workers.probes.WatchedStore, "aclose"),
}
setattr(*owners[component], globals()[behaviour])
sys.argv = ["mms-worker"]
workers.main.main()
"""


def started(settings: Settings, component: str, behaviour: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, component, behaviour],
        cwd=ROOT,
        env=os.environ | environment(settings),
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def alone() -> Settings:
    """Settings of a worker without servers, which waits for them."""
    return Settings(
        amqp_url="amqp://guest:guest@127.0.0.1:1/",
        redis_url="redis://127.0.0.1:1/0",
        admin_port=free_port(),
    )


@pytest.mark.parametrize("behaviour", ["dies", "returns", "is_cancelled_by_a_library"])
@pytest.mark.parametrize("component", ["consumer", "probe of Redis"])
def test_a_component_that_ends_ends_the_process(
    alone: Settings, component: str, behaviour: str
) -> None:
    with started(alone, component, behaviour) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(30) == 1
    assert said.count(f"the {component} ended unexpectedly") == 1
    assert said.count("\nZeroDivisionError\n") == (behaviour == "dies")
    assert "Timeout" not in said  # by itself, not by the watchdog


def test_an_unexpected_error_while_consuming_ends_the_process(settings: Settings) -> None:
    with started(settings, "window", "dies") as process:
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(30) == 1
    assert said.count("the consumer failed; the process ends") == 1
    assert "Timeout" not in said


@pytest.mark.parametrize("component", ["consumer", "probe of Redis"])
def test_sigterm_ends_the_process_whatever_hangs(alone: Settings, component: str) -> None:
    with started(alone, component, "deaf") as process:
        assert process.stderr is not None
        assert until(lambda: is_healthy(alone.admin_port), within=30)
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
        assert process.wait(30) == 1
    assert "Timeout" in said


@pytest.mark.parametrize("step", ["admin", "store"])
def test_a_step_of_the_clean_up_that_fails_skips_no_other(alone: Settings, step: str) -> None:
    with started(alone, step, "fails") as process:
        assert process.stderr is not None
        assert until(lambda: is_healthy(alone.admin_port), within=30)
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
        assert process.wait(30) == 1
    assert "ZeroDivisionError" in said
    assert "Timeout" not in said  # the components ended all the same
