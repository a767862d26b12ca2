"""The spool's file: the statements that add, read, remove and count batches.

Every method blocks and runs on the spool's thread. Processes that share the file write in turns,
see `WriteTurns`. A batch that RabbitMQ can never accept is set aside: it is kept in a table of its
own and is not drained.

When the file is deleted or replaced while it is open, no batch is added any more. The batches in it
are drained for as long as the process lives.
"""

import contextlib
import math
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ingest.spool.database import open_database, primary_code
from ingest.spool.open_files import OpenFiles
from ingest.spool.reserve import Reserve
from ingest.spool.write_turns import WriteTurns

WRITE_LIMIT: Final = 1.5
"""Seconds that a write may take before it counts as failed."""

MAX_READ: Final = 16 * 1024 * 1024
"""Bytes of batches that are read together; a single batch may be larger."""

FILLER_BYTES: Final = 64 * 1024
"""Bytes that `write_filler` writes: as many as a large postback has."""

MAX_EXACT_DEPTH: Final = 1000
"""Batches up to which each removal counts `depth`. Counting more takes longer than a removal."""

MEASURE_INTERVAL: Final = 0.5
"""Seconds between two counts of a `depth` above `MAX_EXACT_DEPTH`."""

_DISK_FULL: Final = "its disk is full; make room"
_INSERT: Final = "INSERT INTO spool (spooled_at, postbacks, batch) VALUES (?, ?, ?)"
_INSERT_SET_ASIDE: Final = "INSERT INTO set_aside (spooled_at, postbacks, batch) VALUES (?, ?, ?)"


class Spooled(NamedTuple):
    """One batch in the spool; `id` grows with every batch added."""

    id: int
    encoded: bytes
    postbacks: int


Piece = tuple[bytes, int]
"""An encoded batch and how many postbacks it holds."""


class Depth(NamedTuple):
    """How full the spool is.

    Attributes:
        oldest: when the oldest batch was added, in seconds since the Unix epoch; None when empty.
    """

    batches: int
    postbacks: int
    oldest: float | None


class SpoolFile:
    """One open file.

    Args:
        path: created with its folder when it does not exist.
        max_bytes: limit of the file's size.

    Attributes:
        depth: as of the last call.
        set_aside_postbacks: how many postbacks are in batches that were set aside.

    Raises:
        OSError, sqlite3.Error: the file cannot be opened or is not a spool.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._reserve = Reserve(path)
        with contextlib.suppress(OSError):  # the disk is full: drain what is here, add nothing
            self._reserve.allocate()
        self._turns = WriteTurns(path)
        self._database = self._open(max_bytes)
        self.set_aside_postbacks = 0
        self._measured_at = -math.inf
        self.depth = Depth(0, 0, None)
        self.measure()
        self._files = OpenFiles(path)

    def close(self) -> None:
        try:
            self._database.close()
        finally:
            self._turns.close()

    @property
    def problem(self) -> str | None:
        """Why no batch can be added; None when the files that adding needs are in place."""
        if (path := self._files.missing) is not None:
            return (
                f"{path.name} was deleted or replaced while it was open; restart mms-ingest to make"
                " a new one, when RabbitMQ has the batches of this one"
            )
        return None if self._reserve.allocated else _DISK_FULL

    def insert(self, encoded: bytes, postbacks: int) -> None:
        """Add a batch; on disk when this returns."""
        now = time.time()
        self._add(lambda: self._database.execute(_INSERT, (now, postbacks, encoded)))
        batches, total, oldest = self.depth
        self.depth = Depth(batches + 1, total + postbacks, now if oldest is None else oldest)

    def write_filler(self) -> None:
        """Write `FILLER_BYTES` and remove them, to find out whether a batch could be added."""

        def write() -> None:
            self._database.execute(
                "INSERT OR REPLACE INTO filler VALUES (1, zeroblob(?))", (FILLER_BYTES,)
            )
            self._database.execute("DELETE FROM filler")

        self._add(write)

    def oldest(self, limit: int) -> list[Spooled]:
        """Up to `limit` batches and `MAX_READ` bytes, oldest first; the first may be larger."""
        rows = self._database.execute(
            "SELECT id, batch, postbacks FROM spool ORDER BY id LIMIT ?", (limit,)
        )
        batches: list[Spooled] = []
        size = 0
        for row in rows:
            spooled = Spooled(*row)
            size += len(spooled.encoded)
            if batches and size > MAX_READ:
                break
            batches.append(spooled)
        return batches

    def delete(self, ids: Sequence[int]) -> None:
        self._shrink(lambda: self._delete_rows(ids))
        next_measurement = self._measured_at + MEASURE_INTERVAL
        if self.depth.batches < MAX_EXACT_DEPTH or time.monotonic() >= next_measurement:
            self.measure()

    def replace(
        self, spooled: Spooled, pieces: Sequence[Piece], set_aside: Sequence[Piece]
    ) -> None:
        """Replace one batch by `pieces` and by pieces that are set aside."""

        def replace_rows() -> None:
            (added_at,) = self._database.execute(
                "SELECT spooled_at FROM spool WHERE id = ?", (spooled.id,)
            ).fetchone()
            self._database.executemany(_INSERT, _rows(added_at, pieces))
            self._database.executemany(_INSERT_SET_ASIDE, _rows(added_at, set_aside))
            self._delete_rows([spooled.id])

        self._shrink(replace_rows)
        self.measure()

    def restore_set_aside(self) -> None:
        """Put the batches that were set aside behind the others, to be drained."""

        def move_rows() -> None:
            self._database.execute(
                "INSERT INTO spool (spooled_at, postbacks, batch)"
                " SELECT spooled_at, postbacks, batch FROM set_aside ORDER BY id"
            )
            self._database.execute("DELETE FROM set_aside")

        if self.set_aside_postbacks:
            self._shrink(move_rows)
            self.measure()

    def measure(self) -> None:
        """Count `depth` and `set_aside_postbacks`."""
        self._measured_at = time.monotonic()
        row = self._database.execute(
            "SELECT count(*), coalesce(sum(postbacks), 0), min(spooled_at) FROM spool"
        ).fetchone()
        set_aside = self._database.execute("SELECT coalesce(sum(postbacks), 0) FROM set_aside")
        (self.set_aside_postbacks,) = set_aside.fetchone()
        self.depth = Depth(*row)

    def measure_and_restore_reserve(self) -> None:
        """Count; when the spool is empty, shrink its file and allocate the reserve again."""
        self.measure()
        if self.depth.batches or self._reserve.allocated:
            return
        with contextlib.suppress(OSError), self._turns.turn(WRITE_LIMIT):
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._database.execute("VACUUM")
            self._reserve.allocate()

    def _open(self, max_bytes: int) -> sqlite3.Connection:
        """Open the database; on a full disk for draining only, in the space of the reserve."""
        try:
            return open_database(self._path, max_bytes, WRITE_LIMIT)
        except sqlite3.OperationalError as error:
            # SQLite reports an I/O error when there is no space for the index of its log.
            no_space = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
            if primary_code(error) not in no_space or not self._reserve.allocated:
                raise
            self._reserve.release()
            return open_database(self._path, max_bytes, WRITE_LIMIT)

    def _add(self, write: Callable[[], object]) -> None:
        """Raises: OSError: see `problem`; the files do not keep what was added, if anything was."""
        if (problem := self.problem) is None:
            with self._turns.turn(WRITE_LIMIT):
                write()
            problem = self.problem  # again: None after the write means that it is in these files
        if problem is not None:
            raise OSError(problem)

    def _shrink(self, write: Callable[[], None]) -> None:
        """Write in one transaction; on a full disk, in the space of the reserve.

        The reserve is released only when the disk is full, not when another process holds SQLite's
        lock.
        """
        try:
            self._in_transaction(write)
        except sqlite3.OperationalError as error:
            if primary_code(error) != sqlite3.SQLITE_FULL:
                raise
            self._reserve.release()
            self._in_transaction(write)

    def _in_transaction(self, write: Callable[[], None]) -> None:
        with self._turns.turn(WRITE_LIMIT), self._database:
            self._database.execute("BEGIN IMMEDIATE")
            write()

    def _delete_rows(self, ids: Sequence[int]) -> None:
        self._database.executemany("DELETE FROM spool WHERE id = ?", [(id_,) for id_ in ids])


def _rows(added_at: float, pieces: Sequence[Piece]) -> list[tuple[float, int, bytes]]:
    return [(added_at, postbacks, encoded) for encoded, postbacks in pieces]
