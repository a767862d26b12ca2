"""Fair write turns for processes that share one file.

SQLite's own lock goes to the process that happens to ask when it is free. A process that writes
without a pause gets it again before another one asks, so the others wait for seconds. Here a
process first waits for the place of the next one, and only the next one waits for the turn. So
a process that had a turn cannot have another while a second process waits.
"""

import contextlib
import fcntl
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

POLL_INTERVAL: Final = 0.002
"""Seconds, on average, between two tries to lock. The blocking system call has no time limit, and
the process that holds the lock may be stopped."""


class WriteTurns:
    """The locks of one process, in files beside the shared file.

    Args:
        path: the shared file.

    Raises:
        OSError: the lock files cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._next = _open(f"{path}-next")
        self._turn = _open(f"{path}-turn")

    @contextlib.contextmanager
    def turn(self, limit: float) -> Iterator[None]:
        """Lock the file for as long as the context lasts; blocks this thread.

        Args:
            limit: seconds to wait for the turn.

        Raises:
            TimeoutError: other processes held the locks all the time.
        """
        deadline = time.monotonic() + limit
        _lock(self._next, deadline)
        try:
            _lock(self._turn, deadline)
        finally:
            fcntl.flock(self._next, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._next)
        os.close(self._turn)


def _open(path: str) -> int:
    return os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)


def _lock(descriptor: int, deadline: float) -> None:
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if time.monotonic() > deadline:
            raise TimeoutError(
                "other processes that share it write all the time, or one of them is stopped"
            )
        time.sleep(POLL_INTERVAL * random.uniform(0.5, 1.5))  # noqa: S311
