"""Fair turns for processes that write to one file.

SQLite's own lock is for whoever happens to ask when it is free: a process that writes without a
pause has it again before another one has asked, and the others wait for seconds. Here whoever wants
a turn first waits to be the next one, and only the next one waits for the turn itself. So who had
a turn cannot have another while somebody is the next.
"""

import contextlib
import fcntl
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ASK_EVERY: Final = 0.002
"""Seconds, on average, between two looks whether a lock is free. The system's call that waits for a
lock has no limit, and the holder may be stopped."""


class Turns:
    """The locks of one process, beside the file that is shared.

    Args:
        path: the shared file.

    Raises:
        OSError: the files of the locks cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._next = _opened(f"{path}-next")
        self._turn = _opened(f"{path}-turn")

    @contextlib.contextmanager
    def turn(self, limit: float) -> Iterator[None]:
        """Have the file alone for as long as the context lasts; blocks this thread.

        Args:
            limit: seconds to wait for it.

        Raises:
            TimeoutError: others had it all the time.
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


def _opened(path: str) -> int:
    return os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)


def _lock(descriptor: int, deadline: float) -> None:
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if time.monotonic() > deadline:
            raise TimeoutError(
                "other processes that share it write all the time, or one is stopped"
            )
        time.sleep(ASK_EVERY * random.uniform(0.5, 1.5))  # noqa: S311
