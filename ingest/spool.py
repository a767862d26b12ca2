"""The durable local queue: where batches wait while RabbitMQ is away.

An SQLite file in WAL mode with `synchronous=FULL`: a batch that `add` has returned for is on disk
and survives kill -9 and power loss. All of SQLite runs on one thread of its own, so that an fsync
never holds up the event loop. Several processes may share a file; one of them at a time drains
it, by a lock that the operating system releases when its holder dies.

Removing from a full disk needs room too, for SQLite's log. So a reserve is kept beside the file
and given up when a removal finds no room; until the spool is empty nothing is added any more.
"""

import asyncio
import contextlib
import fcntl
import os
import random
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from shared.errors import SettingsError, SpoolUnavailableError
from shared.formats import FORMAT

ADD_LIMIT: Final = 1.5
"""Seconds that writing a batch may take before it counts as not written."""

OPEN_LIMIT: Final = 5.0
"""Seconds to wait for another process that is just making or closing the same file."""

RESERVE: Final = 1024 * 1024
"""Bytes that removing what is in the spool may need on a full disk."""

_PAGE: Final = 4096
_T = TypeVar("_T")


class Spooled(NamedTuple):
    """One batch in the spool; `id` grows with every batch added."""

    id: int
    batch: bytes
    postbacks: int


class Depth(NamedTuple):
    """How full the spool is.

    Attributes:
        oldest: seconds since the Unix epoch when the oldest batch came, None when there is none.
    """

    batches: int
    postbacks: int
    oldest: float | None


class Spool:
    """A bounded first-in-first-out queue of batches in one file.

    Args:
        path: made with its folder when it is not there.
        max_bytes: limit of the file's size.

    Attributes:
        problem: why the last batch was not written, None if it was.

    Raises:
        SettingsError: the file cannot be opened or is no spool.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spool")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._reserve = path.with_name(f"{path.name}-reserve")
            with contextlib.suppress(OSError):  # a full disk: drain what is there, add nothing
                self._thread.submit(_allocate, self._reserve).result()
            self._database = self._thread.submit(_opened, path, max_bytes).result()
        except (OSError, sqlite3.Error) as error:
            self._thread.shutdown()
            message = f"MMS_SPOOL_PATH is {path}, which cannot be used as a spool: {error}"
            raise SettingsError(message) from error
        self._drain_lock: int | None = None
        self.problem: str | None = None
        self.depth = self._thread.submit(self._measure).result()

    async def add(self, batch: bytes, postbacks: int) -> None:
        """Write a batch; returns when it is on disk.

        Args:
            postbacks: how many the batch holds, for `depth`.

        Raises:
            SpoolUnavailableError: the spool or its disk is full or broken, or too slow.
        """
        try:
            async with asyncio.timeout(ADD_LIMIT):
                await self._run(lambda: self._insert(batch, postbacks))
        except TimeoutError as error:
            self.problem = f"the spool {self._path} took over {ADD_LIMIT:g} s"
            raise SpoolUnavailableError(self.problem) from error
        except SpoolUnavailableError as error:
            self.problem = str(error)
            raise
        self.problem = None

    async def oldest(self, limit: int) -> list[Spooled]:
        """Up to `limit` batches, oldest first.

        Raises:
            SpoolUnavailableError: the disk or the file is broken.
        """
        return await self._run(lambda: self._select(limit))

    async def remove(self, ids: list[int]) -> None:
        """Forget batches that are safe elsewhere.

        Raises:
            SpoolUnavailableError: the disk is full or broken; they are still there.
        """
        await self._run(lambda: self._delete(ids))

    async def measure(self) -> Depth:
        """Bring `depth` up to date; another process may share the file.

        Raises:
            SpoolUnavailableError: the disk or the file is broken.
        """
        self.depth = await self._run(self._measure)
        return self.depth

    @property
    def drained_here(self) -> bool:
        """Whether this process is the one that drains."""
        return self._drain_lock is not None

    def lock_for_draining(self) -> bool:
        """Whether this process is the one that drains; asks again at each call until it is.

        Raises:
            SpoolUnavailableError: the lock's file cannot be opened.
        """
        if self._drain_lock is not None:
            return True
        try:
            descriptor = os.open(f"{self._path}-drain", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise SpoolUnavailableError(f"the spool {self._path} refuses: {error}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._drain_lock = descriptor
        return True

    async def aclose(self) -> None:
        """Close the file; what is in it stays for the next process."""
        await self._run(self._database.close)
        self._thread.shutdown()
        if self._drain_lock is not None:
            os.close(self._drain_lock)

    async def _run(self, step: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, step)
        except (sqlite3.Error, OSError) as error:
            raise SpoolUnavailableError(f"the spool {self._path} refuses: {error}") from error

    def _insert(self, batch: bytes, postbacks: int) -> None:
        if not self._reserve.exists():
            raise OSError("its disk is full; make room")
        now = time.time()
        self._database.execute(
            "INSERT INTO spool (spooled_at, postbacks, batch) VALUES (?, ?, ?)",
            (now, postbacks, batch),
        )
        batches, total, oldest = self.depth
        self.depth = Depth(batches + 1, total + postbacks, now if oldest is None else oldest)

    def _select(self, limit: int) -> list[Spooled]:
        rows = self._database.execute(
            "SELECT id, batch, postbacks FROM spool ORDER BY id LIMIT ?", (limit,)
        )
        return [Spooled(*row) for row in rows]

    def _delete(self, ids: list[int]) -> None:
        try:
            self._delete_rows(ids)
        except sqlite3.OperationalError:
            self._reserve.unlink(missing_ok=True)
            self._delete_rows(ids)
        self.depth = self._measure()

    def _delete_rows(self, ids: list[int]) -> None:
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("DELETE FROM spool WHERE id = ?", [(id_,) for id_ in ids])

    def _measure(self) -> Depth:
        row = self._database.execute(
            "SELECT count(*), coalesce(sum(postbacks), 0), min(spooled_at) FROM spool"
        ).fetchone()
        depth = Depth(*row)
        if not depth.batches and not self._reserve.exists():
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._database.execute("VACUUM")
            _allocate(self._reserve)
        return depth


def _allocate(path: Path) -> None:
    """Make sure that the reserve takes up its room on the disk.

    Raises:
        OSError: there is no room; then there is no reserve.
    """
    try:
        with path.open("ab") as reserve:
            os.posix_fallocate(reserve.fileno(), 0, RESERVE)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _opened(path: Path, max_bytes: int) -> sqlite3.Connection:
    """The file, also when several processes make it at the same moment.

    SQLite does not wait, whatever its timeout, while another one turns a file into WAL mode.
    """
    deadline = time.monotonic() + OPEN_LIMIT
    while True:
        try:
            return _open(path, max_bytes)
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
        time.sleep(random.uniform(0.01, 0.05))  # noqa: S311


def _open(path: Path, max_bytes: int) -> sqlite3.Connection:
    database = sqlite3.connect(
        path, timeout=ADD_LIMIT, isolation_level=None, check_same_thread=False
    )
    try:
        _prepare(database, max_bytes)
    except sqlite3.Error:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection, max_bytes: int) -> None:
    database.execute(f"PRAGMA page_size = {_PAGE}")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute(f"PRAGMA max_page_count = {max(16, max_bytes // _PAGE)}")
    database.execute(f"PRAGMA journal_size_limit = {16 * 1024 * 1024}")
    # 0 is a new file, or one of the first release, whose format is 1.
    (written,) = database.execute("PRAGMA user_version").fetchone()
    if written > FORMAT:
        raise sqlite3.DatabaseError(f"format {written} was written by a newer release")
    if written < FORMAT:
        database.execute(f"PRAGMA user_version = {FORMAT}")
    database.execute(
        "CREATE TABLE IF NOT EXISTS spool ("
        " id INTEGER PRIMARY KEY AUTOINCREMENT,"
        " spooled_at REAL NOT NULL,"
        " postbacks INTEGER NOT NULL,"
        " batch BLOB NOT NULL)"
    )
    # Holds all that `depth` asks for, so that asking does not read the batches.
    database.execute("CREATE INDEX IF NOT EXISTS depth ON spool (spooled_at, postbacks)")
