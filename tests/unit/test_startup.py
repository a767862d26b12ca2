"""Ctrl-C while a command imports its modules, and its standard output."""

import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import time
from importlib.metadata import distribution
from pathlib import Path

import pytest

INTERRUPTED = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored where the tests run
sys.meta_path.insert(0, Interrupt())
from {start} import main
main()
"""

COMMANDS = {
    each.name: each.module
    for each in distribution("mms-postbacks").entry_points
    if each.group == "console_scripts"
}
"""The module of each installed command's entry point."""


@pytest.mark.parametrize(
    ("command", "module"),
    [
        ("mms-admin", "click"),
        ("mms-admin", "workers.admin.plan.command"),
        ("mms-ingest", "click"),
        ("mms-ingest", "ingest.http.server"),
        ("mms-simulate", "click"),
        ("mms-simulate", "ingest.simulate.verify"),
        ("mms-worker", "click"),
        ("mms-worker", "workers.probes"),
    ],
)
def test_ctrl_c_while_importing_prints_no_traceback(command: str, module: str) -> None:
    program = INTERRUPTED.format(start=COMMANDS[command], module=module)
    done = subprocess.run(
        (sys.executable, "-c", program, "--version"),
        capture_output=True,
        cwd=Path(__file__).parents[2],
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


@pytest.mark.parametrize("handler", ["default_int_handler", "SIG_IGN"])
def test_the_handler_of_ctrl_c_is_restored_after_the_imports(handler: str) -> None:
    """The commands handle Ctrl-C themselves; a script's background jobs ignore it."""
    check = f"""
import signal
from shared.process.startup import interruptible
signal.signal(signal.SIGINT, signal.{handler})
with interruptible():
    if signal.{handler} == signal.SIG_IGN:
        signal.raise_signal(signal.SIGINT)
assert signal.getsignal(signal.SIGINT) == signal.{handler}
"""
    subprocess.run((sys.executable, "-c", check), cwd=Path(__file__).parents[2], check=True)


@pytest.mark.parametrize("command", ["mms-admin", "mms-simulate"])
def test_a_command_that_is_stopped_and_continued_prints_all(command: str) -> None:
    """As by Ctrl-Z and `fg`: the signals interrupt a write to a pipe that is full."""
    program = Path(sys.executable).with_name(command)
    expected = subprocess.check_output((program, "--help"))
    assert len(expected) > PIPE_SIZE
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    environ = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen((program, "--help"), stdout=writing, env=environ) as running:
        os.close(writing)
        while _unread(reading) < PIPE_SIZE:
            assert running.poll() is None
            time.sleep(0.01)
        for _ in range(3):
            running.send_signal(signal.SIGSTOP)
            os.waitpid(running.pid, os.WUNTRACED)
            running.send_signal(signal.SIGCONT)
            os.waitpid(running.pid, os.WCONTINUED)
        with os.fdopen(reading, "rb") as output:
            assert output.read() == expected


PIPE_SIZE = 4096


def _unread(pipe: int) -> int:
    """Bytes in a pipe."""
    (count,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))
    return int(count)
