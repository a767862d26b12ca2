"""Runs `make run` and `make site` in the foreground: until Ctrl-C, with lines on the terminal."""

import asyncio
import contextlib
import fcntl
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Final

from shared.errors import PostbacksError, StartError
from shared.process import cli
from shared.settings.load import warn_of_unknown_variables

_STARTED: Final = time.monotonic()


def run(command: str, var: Path, work: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run `work` until a signal cancels it; an error of ours becomes one line and exit status 1.

    Args:
        command: what the user typed, such as `make run`.
        var: folder for the data; only one such command may use it at a time.
    """
    try:
        asyncio.run(_run(command, var, work))
    except (PostbacksError, BaseExceptionGroup) as error:
        if (known := cli.only_ours(error)) is None:
            raise
        say(f"\nNot running: {known}")
        raise SystemExit(1) from None


async def _run(command: str, var: Path, work: Callable[[], Coroutine[None, None, None]]) -> None:
    stop = cli.stop_event()
    with _lock(var, command):
        warn_of_unknown_variables()
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(work())
            await stop.wait()
            task.cancel()
        progress(f"stopped; the data is in {var}")


@contextlib.contextmanager
def _lock(var: Path, command: str) -> Iterator[None]:
    """Make sure that no second command uses this folder.

    Raises:
        StartError: another one uses it.
    """
    var.mkdir(parents=True, exist_ok=True)
    with (var / "run.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StartError(
                f"`{command}` is already running in {var}; stop it, or use another folder"
                f" ({command} VAR=<folder>)"
            ) from error
        yield


def progress(text: str) -> None:
    """Print a line with the seconds since the start."""
    say(f"{time.monotonic() - _STARTED:6.1f} s  {text}")


def say(text: str) -> None:
    """Print a line."""
    with contextlib.suppress(OSError):  # the terminal may be closed; the children must still stop
        print(text, flush=True)
