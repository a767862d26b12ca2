"""A child process: ready when `start` returns, killed by the kernel when its parent ends.

It leads a session of its own. So a Ctrl-C in the terminal does not reach it, and one signal to its
process group reaches the processes that it has started. All functions here block the calling
thread; asyncio code uses `asyncio.to_thread`.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Final

from shared.errors import StartError

TAIL: Final = 15
"""Lines of a log in an error."""

POLL: Final = 0.05
"""Seconds between two checks of a process that starts."""

LARGE_LOG: Final = 16 * 2**20
"""Bytes; a larger log is renamed to `<name>.log.old` at the next start."""


class Child:
    """A child process.

    Attributes:
        name: what messages call it.
        log_path: the file with its output.
    """

    start_limit: float = 30.0
    """Seconds that it may take until it is ready."""

    stop_limit: float = 15.0
    """Seconds that it may take to end after a SIGTERM; then it is killed."""

    def __init__(
        self, name: str, command: Sequence[str], *, log_path: Path, env: Mapping[str, str]
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._command = [*_kill_with_parent(), *command]
        self._env = dict(env)
        self._process: subprocess.Popen[bytes] | None = None
        self._log_from = 0

    @property
    def pid(self) -> int | None:
        """Its process id, also after its end; None before it was started."""
        return self._process.pid if self._process else None

    @property
    def status(self) -> int | None:
        """Its exit status, None while it runs or before it was started."""
        return self._process.poll() if self._process else None

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def prepare(self) -> None:
        """Prepare what it needs before it starts.

        Raises:
            StartError: it cannot be started.
        """

    def ready(self) -> bool:
        """Whether it can do its work; called repeatedly while it starts."""
        return True

    def gave_up(self) -> bool:
        """Whether it will never be ready, though it still runs."""
        return False

    def start(self) -> None:
        """Start it and return when it is ready. Do nothing if it already runs.

        Raises:
            StartError: it ended, or was not ready within `start_limit`; the error has the last
                lines of its log.
        """
        if self.is_alive():
            return
        self.launch()
        until = time.monotonic() + self.start_limit
        while not self.ready():
            if self.gave_up():
                self.kill()
                raise self._failed("could not start")
            if not self.is_alive():
                self.kill()
                raise self._failed(f"ended at once{self._status()}")
            if time.monotonic() > until:
                self.kill()
                raise self._failed(f"was not ready after {self.start_limit:.0f} s")
            time.sleep(POLL)

    def launch(self) -> None:
        """Start it without waiting until it is ready.

        Raises:
            StartError: it cannot be started.
        """
        self.prepare()
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if self.log_path.stat().st_size > LARGE_LOG:
                self.log_path.replace(f"{self.log_path}.old")
        with self.log_path.open("ab") as log:
            self._log_from = log.seek(0, os.SEEK_END)
            try:
                self._process = _spawn(self._command, self._env, log)
            except OSError as error:
                raise StartError(f"{self.name} cannot be started: {error}") from error

    def stop(self) -> None:
        """Ask it to end and wait; kill it if it does not end within `stop_limit`."""
        if self._process is None:
            return
        if self.is_alive():
            self.resume()
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self.stop_limit)
        self.kill()

    def kill(self) -> None:
        """Kill it and all processes that it has started, as a crash would (SIGKILL)."""
        if self._process is not None:
            self._signal_group(signal.SIGKILL)
            self._process.wait()

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it: like a machine that no longer responds but closes no connection."""
        self._signal_group(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue it after `pause`."""
        self._signal_group(signal.SIGCONT)

    def log(self) -> str:
        """Its output since it was last started."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(self._log_from)
                return log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""

    def tail(self) -> str:
        """The last lines of its output since it was last started."""
        return last_lines(self.log())

    def _failed(self, how: str) -> StartError:
        lines = "".join(f"\n    {line}" for line in self.tail().splitlines())
        return StartError(f"{self.name} {how}; the end of {self.log_path}:{lines or ' (empty)'}")

    def _status(self) -> str:
        code = self._process.returncode if self._process else None
        return "" if code is None else f" with status {code}"

    def _signal_group(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


def last_lines(text: str) -> str:
    """The last lines of a log, for an error."""
    return "\n".join(text.rstrip().splitlines()[-TAIL:])


@contextlib.contextmanager
def running(*children: Child) -> Iterator[None]:
    """Start children in this order, and stop them in reverse order at the end of the context."""
    with contextlib.ExitStack() as stack:
        for child in children:
            stack.callback(child.stop)
            child.start()
        yield


# For the kernel, the parent of a process is the thread that started it. This thread lives as long
# as the interpreter, unlike the threads of an event loop's pool.
_spawner: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


def _spawn(
    command: Sequence[str], env: Mapping[str, str], log: BinaryIO
) -> subprocess.Popen[bytes]:
    return _spawner.submit(
        subprocess.Popen,
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ).result()


def _kill_with_parent() -> Sequence[str]:
    """Words before a command that make the kernel kill it when its parent ends for any reason.

    `setpriv` is part of util-linux. It runs in the child, before the child becomes the command.
    Python's `preexec_fn` could do the same, but is not safe with threads.
    """
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()
