"""The lock of the one process that drains a shared spool.

The operating system releases it when the process that holds it ends.
"""

import fcntl
import os
from pathlib import Path


class DrainLock:
    """The lock as one process sees it.

    Args:
        spool: the spool's file.
    """

    def __init__(self, spool: Path) -> None:
        self._path = f"{spool}-drain"
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    def acquire(self) -> bool:
        """Try to lock; whether this process holds the lock.

        Raises:
            OSError: the lock file cannot be opened.
        """
        if self._descriptor is not None:
            return True
        descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
