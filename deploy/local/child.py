"""One process that we started: ready when `start` returns, gone when we are gone.

It leads a session of its own, so a Ctrl-C in the terminal does not reach it before whoever
supervises it says so, and one signal to its process group reaches what it has started in turn.
Everything here waits in the calling thread; asyncio code uses `asyncio.to_thread`.
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
"""Lines of a log that an error shows."""

POLL: Final = 0.05
"""Seconds between two looks at a process that starts or stops."""

LARGE_LOG: Final = 16 * 2**20
"""Bytes; a log larger than this is put aside at the next start, as `<name>.log.old`."""


class Child:
    """A process of ours.

    Attributes:
        name: what people call it.
        log_path: where its output goes.
    """

    start_limit: float = 30.0
    """Seconds it may take until it is ready."""

    stop_limit: float = 15.0
    """Seconds it may take to end by itself; then it is killed."""

    def __init__(
        self, name: str, command: Sequence[str], *, log_path: Path, env: Mapping[str, str]
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._command = [*_tied_to_us(), *command]
        self._env = dict(env)
        self._process: subprocess.Popen[bytes] | None = None
        self._log_from = 0

    @property
    def pid(self) -> int | None:
        """Its process id, None before it was started; kept after its end."""
        return self._process.pid if self._process else None

    @property
    def status(self) -> int | None:
        """Its exit status, None while it runs or before it was started."""
        return self._process.poll() if self._process else None

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def prepare(self) -> None:
        """See to what it needs before it starts.

        Raises:
            StartError: it cannot be started.
        """

    def ready(self) -> bool:
        """Whether it can do its work; asked again and again while it starts."""
        return True

    def gave_up(self) -> bool:
        """Whether it is known that it will never be ready, though it still runs."""
        return False

    def start(self) -> None:
        """Start it and return when it is ready. Nothing happens if it runs already.

        Raises:
            StartError: it ended or was not ready within `start_limit`; has the log's last lines.
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
        """Start it and do not wait until it is ready.

        Raises:
            StartError: it cannot be started.
        """
        self.prepare()
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if self.log_path.stat().st_size > LARGE_LOG:
                self.log_path.replace(f"{self.log_path}.old")
        with self.log_path.open("ab") as log:
            self._log_from = log.tell()
            try:
                self._process = _spawn(self._command, self._env, log)
            except OSError as error:
                raise StartError(f"{self.name} cannot be started: {error}") from error

    def stop(self) -> None:
        """Ask it to end and wait; kill it if it does not within `stop_limit`."""
        if self._process is None:
            return
        if self.is_alive():
            self.resume()
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self.stop_limit)
        self.kill()

    def kill(self) -> None:
        """End it and all it has started at once, as a crash would (SIGKILL)."""
        if self._process is not None:
            self._signal_group(signal.SIGKILL)
            self._process.wait()

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it: to others a machine that no longer answers and closes no connection."""
        self._signal_group(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self._signal_group(signal.SIGCONT)

    def log(self) -> str:
        """What it has written since it was last started."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(self._log_from)
                return log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""

    def tail(self) -> str:
        """The last lines it has written since it was last started."""
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
    """As many lines from the end of a log as an error shows."""
    return "\n".join(text.rstrip().splitlines()[-TAIL:])


@contextlib.contextmanager
def running(*children: Child) -> Iterator[None]:
    """Start them in this order; stop them in the opposite one, whatever happens."""
    with contextlib.ExitStack() as stack:
        for child in children:
            stack.callback(child.stop)
            child.start()
        yield


# The kernel's "when the parent dies" means the thread that made the process. This one lives as long
# as the interpreter, unlike those of an event loop's pool.
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


def _tied_to_us() -> Sequence[str]:
    """What to put before a command so that the kernel kills it when we die, however we die.

    `setpriv` belongs to util-linux and sets it in the child itself, before it becomes the command;
    Python's `preexec_fn` could do the same, but not safely where there are threads.
    """
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()
