"""Disk space that is reserved for draining a full disk.

Removing batches needs space for SQLite's log. So a file of `SIZE` bytes is kept beside the spool.
It is deleted when a removal, or opening the spool, finds no space. While it is missing, no batch is
added. It is allocated again when the spool is empty.
"""

import os
from pathlib import Path
from typing import Final

SIZE: Final = 1024 * 1024
"""Bytes that removing batches may need."""


class Reserve:
    """The reserve of one spool; processes that share the spool share it.

    Args:
        spool: the spool's file.
    """

    def __init__(self, spool: Path) -> None:
        self._path = spool.with_name(f"{spool.name}-reserve")

    @property
    def allocated(self) -> bool:
        return self._path.exists()

    def allocate(self) -> None:
        """Allocate the space on the disk.

        Raises:
            OSError: there is no space; then there is no reserve.
        """
        try:
            with self._path.open("ab") as reserve:
                os.posix_fallocate(reserve.fileno(), 0, SIZE)
        except OSError:
            self.release()
            raise

    def release(self) -> None:
        """Return the space to the disk."""
        self._path.unlink(missing_ok=True)
