"""A command that runs until Ctrl-C and prints what it does, as at a terminal."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
START_LIMIT = 60.0


class Live:
    """One `make run` or `make site`, without make.

    Args:
        module: that make would start.
        var: the folder for its data.
    """

    def __init__(self, module: str, var: Path, environment: Mapping[str, str]) -> None:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("MMS_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, "--var", str(var)],
            cwd=ROOT,
            env={**clean, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.pid = self._process.pid
        self.said: list[str] = []
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def line(self, pattern: str, within: float = START_LIMIT) -> str:
        """Wait for the next printed line that matches the pattern."""
        end = time.monotonic() + within
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                pytest.fail(f"no line with {pattern!r} in:\n{''.join(self.said)}")
            if re.search(pattern, line):
                return line

    def interrupt(self) -> int:
        """Send Ctrl-C; return the exit status."""
        self._process.send_signal(signal.SIGINT)
        return self.wait()

    def wait(self) -> int:
        status = self._process.wait(START_LIMIT)
        self._reader.join()
        return status

    def end(self) -> None:
        if self._process.poll() is None:
            self.interrupt()
        self._process.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said.append(line)
            self._lines.put(line)
