"""Detects that the files of an open database were deleted, moved or replaced.

SQLite goes on writing to such files. The operating system frees them when the last process closes
them, so what was written then is lost.
"""

from pathlib import Path
from typing import Final

_SUFFIXES: Final = ("", "-wal", "-shm")
"""SQLite's own files in WAL mode; all of them exist while the database is open."""


class OpenFiles:
    """The files of one open database.

    Args:
        path: the database.

    Raises:
        OSError: one of the files does not exist.
    """

    def __init__(self, path: Path) -> None:
        paths = [Path(f"{path}{suffix}") for suffix in _SUFFIXES]
        self._opened = [(each, _identity(each)) for each in paths]

    @property
    def missing(self) -> Path | None:
        """The first path that leads to another file now, or to none; None when all are in place."""
        for path, identity in self._opened:
            try:
                in_place = _identity(path) == identity
            except OSError:
                in_place = False
            if not in_place:
                return path
        return None


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
