"""The durable local queue: where batches wait while RabbitMQ is away.

An SQLite file in WAL mode with `synchronous=FULL`: a batch that `add` has returned for is on disk
and survives kill -9 and power loss. All of SQLite runs on one thread of its own, so that an fsync
never holds up the event loop. Several processes may share a file. They write in turns, see `Turns`;
one of them at a time drains it, by a lock that the operating system releases when its holder dies.

Removing from a full disk needs room too, for SQLite's log. So a reserve is kept beside the file
and given up when a removal, or opening the file, finds no room; until the spool is empty nothing is
added any more.

A batch that RabbitMQ can never take is set aside: kept in a table of its own, drained no more.

When somebody deletes or replaces the file while it is open, nothing is added any more. What was in
it is drained for as long as the process lives.
"""

import asyncio
import contextlib
import fcntl
import math
import os
import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from ingest.spool.open_files import OpenFiles
from ingest.spool.write_turns import Turns
from shared.errors import SettingsError, SpoolUnavailableError
from shared.postback.formats import FORMAT

ADD_LIMIT: Final = 1.5
"""Seconds that writing a batch may take before it counts as not written."""

OPEN_LIMIT: Final = 5.0
"""Seconds to wait for another process that is just making or closing the same file."""

RESERVE: Final = 1024 * 1024
"""Bytes that removing what is in the spool may need on a full disk."""

STUCK: Final = 1.0
"""Seconds after which a call that the disk has not answered is a problem."""

CHECK_BYTES: Final = 64 * 1024
"""Bytes that `check` writes: those of a large postback."""

READ_BYTES: Final = 16 * 1024 * 1024
"""Bytes of batches that are read together, if they are several."""

EXACT: Final = 1000
"""Batches up to which `depth` is counted at each removal; beyond, every `MEASURE_EVERY` seconds."""

MEASURE_EVERY: Final = 0.5

_PAGE: Final = 4096
_FULL: Final = "its disk is full; make room"
_AT_ITS_LIMIT: Final = (
    "it has reached MMS_SPOOL_MAX_BYTES or its disk is full; bring RabbitMQ back, or make room"
)
_T = TypeVar("_T")


class Spooled(NamedTuple):
    """One batch in the spool; `id` grows with every batch added."""

    id: int
    batch: bytes
    postbacks: int


Piece = tuple[bytes, int]
"""A batch and how many postbacks it holds."""


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
        depth: what waits in it, as of the last call.
        set_aside_postbacks: how many postbacks are in batches that were set aside.

    Raises:
        SettingsError: the file cannot be opened or is no spool.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._call_began: float | None = None
        self._refusal: str | None = None
        self._last_written = -math.inf
        self._readable = True
        self.set_aside_postbacks = 0
        self._measured_at = -math.inf
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spool")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._reserve = path.with_name(f"{path.name}-reserve")
            with contextlib.suppress(OSError):  # a full disk: drain what is there, add nothing
                self._thread.submit(_allocate, self._reserve).result()
            self._turns = Turns(path)
            self._database = self._thread.submit(self._open, max_bytes).result()
            self.depth = self._thread.submit(self._measure).result()
            self._files = OpenFiles(path)
        except (OSError, sqlite3.Error) as error:
            self._thread.shutdown()
            message = f"MMS_SPOOL_PATH is {path}, which cannot be used as a spool: {error}"
            raise SettingsError(message) from error
        self._drain_lock: int | None = None

    @property
    def problem(self) -> str | None:
        """Why a batch added now would be refused, as far as is known; see `check`."""
        began = self._call_began
        if began is not None and time.monotonic() - began > STUCK:
            return f"the spool {self._path} has not answered for over {STUCK:g} s"
        if (missing := self._missing) is not None:
            return f"the spool {self._path} refuses: {missing}"
        return self._refusal

    @property
    def readable(self) -> bool:
        """Whether what is in it can be drained, as far as is known."""
        began = self._call_began
        stuck = began is not None and time.monotonic() - began > STUCK
        return self._readable and not stuck

    async def add(self, batch: bytes, postbacks: int) -> None:
        """Write a batch; returns when it is on disk.

        Args:
            postbacks: how many the batch holds, for `depth`.

        Raises:
            SpoolUnavailableError: the spool or its disk is full or broken, or too slow.
        """
        await self._write(lambda: self._insert(batch, postbacks))

    async def check(self) -> None:
        """Bring `problem` up to date: unless a batch was just added, write something and remove it.

        A spool that is full or on a broken disk says so only when it is written to.
        """
        if self._refusal is not None or time.monotonic() - self._last_written >= STUCK:
            with contextlib.suppress(SpoolUnavailableError):
                await self._write(self._write_filler)

    async def oldest(self, limit: int) -> list[Spooled]:
        """Up to `limit` batches, oldest first, and no more than `READ_BYTES` if it is several.

        Raises:
            SpoolUnavailableError: the disk or the file is broken.
        """
        try:
            batches = await self._run(lambda: self._select(limit))
        except SpoolUnavailableError:
            self._readable = False
            raise
        self._readable = True
        return batches

    async def remove(self, ids: list[int]) -> None:
        """Forget batches that are safe elsewhere.

        Raises:
            SpoolUnavailableError: the disk is full or broken; they are still there.
        """
        await self._run(lambda: self._delete(ids))

    async def replace(
        self, spooled: Spooled, batches: Sequence[Piece], aside: Sequence[Piece]
    ) -> None:
        """Put other batches in the place of one, at once.

        Args:
            batches: to be drained.
            aside: to be set aside.

        Raises:
            SpoolUnavailableError: the disk is full or broken; nothing was changed.
        """
        await self._run(lambda: self._replace(spooled, batches, aside))

    async def take_back(self) -> None:
        """Have drained what was set aside; RabbitMQ may take it by now.

        Raises:
            SpoolUnavailableError: the disk is full or broken; nothing was changed.
        """
        await self._run(self._take_back)

    async def measure(self) -> Depth:
        """Bring `depth` up to date; another process may share the file.

        Raises:
            SpoolUnavailableError: the disk or the file is broken.
        """
        self.depth = await self._run(self._measure)
        if not self.depth.batches and not self._reserve.exists():
            await self._run(self._make_reserve)
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
        try:
            await self._run(self._database.close)
        finally:
            self._thread.shutdown(wait=False)
            self._turns.close()
            self._release_drain_lock()

    def _release_drain_lock(self) -> None:
        if self._drain_lock is not None:
            os.close(self._drain_lock)

    async def _write(self, step: Callable[[], None]) -> None:
        """Write within `ADD_LIMIT`, and know from then on whether that works.

        Raises:
            SpoolUnavailableError: see `add`.
        """
        try:
            async with asyncio.timeout(ADD_LIMIT):
                await self._run(step)
        except TimeoutError as error:
            self._refusal = f"the spool {self._path} took over {ADD_LIMIT:g} s"
            raise SpoolUnavailableError(self._refusal) from error
        except SpoolUnavailableError as error:
            self._refusal = str(error)
            raise
        self._refusal = None
        self._last_written = time.monotonic()

    async def _run(self, step: Callable[[], _T]) -> _T:
        def call() -> _T:
            self._call_began = time.monotonic()
            try:
                return step()
            finally:
                self._call_began = None

        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        except (sqlite3.Error, OSError) as error:
            full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
            why = _AT_ITS_LIMIT if full else error
            raise SpoolUnavailableError(f"the spool {self._path} refuses: {why}") from error

    def _open(self, max_bytes: int) -> sqlite3.Connection:
        """The file; on a full disk, for draining alone, with the room that was reserved."""
        try:
            return _opened(self._path, max_bytes)
        except sqlite3.OperationalError as error:
            # SQLite calls it an I/O error when there is no room for its index of the log.
            no_room = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
            if error.sqlite_errorcode & 0xFF not in no_room or not self._reserve.exists():
                raise
            self._reserve.unlink(missing_ok=True)
            return _opened(self._path, max_bytes)

    @property
    def _missing(self) -> str | None:
        """What is not there that adding needs."""
        if (path := self._files.missing) is not None:
            return (
                f"{path.name} was deleted or replaced while it was open; restart mms-ingest to make"
                " a new one, when RabbitMQ has what is in this one"
            )
        return None if self._reserve.exists() else _FULL

    def _insert(self, batch: bytes, postbacks: int) -> None:
        now = time.time()
        self._add(lambda: self._database.execute(_ADD, (now, postbacks, batch)))
        batches, total, oldest = self.depth
        self.depth = Depth(batches + 1, total + postbacks, now if oldest is None else oldest)

    def _write_filler(self) -> None:
        def step() -> None:
            self._database.execute(
                "INSERT OR REPLACE INTO filler VALUES (1, zeroblob(?))", (CHECK_BYTES,)
            )
            self._database.execute("DELETE FROM filler")

        self._add(step)

    def _add(self, step: Callable[[], object]) -> None:
        """Raises: OSError: what adding needs is not there, so that nothing was added for good."""
        if (missing := self._missing) is None:
            with self._turns.turn(ADD_LIMIT):
                step()
            missing = self._missing  # after the write: then it went into the files in place
        if missing is not None:
            raise OSError(missing)

    def _select(self, limit: int) -> list[Spooled]:
        rows = self._database.execute(
            "SELECT id, batch, postbacks FROM spool ORDER BY id LIMIT ?", (limit,)
        )
        batches: list[Spooled] = []
        size = 0
        for row in rows:
            spooled = Spooled(*row)
            size += len(spooled.batch)
            if batches and size > READ_BYTES:
                break
            batches.append(spooled)
        return batches

    def _delete(self, ids: list[int]) -> None:
        self._make_room_and(lambda: self._delete_rows(ids))
        # Counting many batches takes longer than removing some of them.
        if self.depth.batches < EXACT or time.monotonic() >= self._measured_at + MEASURE_EVERY:
            self.depth = self._measure()

    def _delete_rows(self, ids: list[int]) -> None:
        self._database.executemany("DELETE FROM spool WHERE id = ?", [(id_,) for id_ in ids])

    def _replace(self, spooled: Spooled, batches: Sequence[Piece], aside: Sequence[Piece]) -> None:
        def step() -> None:
            (came,) = self._database.execute(
                "SELECT spooled_at FROM spool WHERE id = ?", (spooled.id,)
            ).fetchone()
            self._database.executemany(_ADD, [(came, count, batch) for batch, count in batches])
            self._database.executemany(
                "INSERT INTO set_aside (spooled_at, postbacks, batch) VALUES (?, ?, ?)",
                [(came, count, batch) for batch, count in aside],
            )
            self._delete_rows([spooled.id])

        self._make_room_and(step)
        self.depth = self._measure()

    def _take_back(self) -> None:
        def step() -> None:
            self._database.execute(
                "INSERT INTO spool (spooled_at, postbacks, batch)"
                " SELECT spooled_at, postbacks, batch FROM set_aside ORDER BY id"
            )
            self._database.execute("DELETE FROM set_aside")

        if self.set_aside_postbacks:
            self._make_room_and(step)
            self.depth = self._measure()

    def _make_room_and(self, step: Callable[[], None]) -> None:
        """Do a step at once (all of it or nothing), with the reserve's room if the disk is full.

        Only that the disk is full gives up the reserve: another process that holds the file for a
        moment does not.
        """
        try:
            self._in_transaction(step)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_FULL:
                raise
            self._reserve.unlink(missing_ok=True)
            self._in_transaction(step)

    def _in_transaction(self, step: Callable[[], None]) -> None:
        with self._turns.turn(ADD_LIMIT), self._database:
            self._database.execute("BEGIN IMMEDIATE")
            step()

    def _measure(self) -> Depth:
        self._measured_at = time.monotonic()
        row = self._database.execute(
            "SELECT count(*), coalesce(sum(postbacks), 0), min(spooled_at) FROM spool"
        ).fetchone()
        aside = self._database.execute("SELECT coalesce(sum(postbacks), 0) FROM set_aside")
        (self.set_aside_postbacks,) = aside.fetchone()
        return Depth(*row)

    def _make_reserve(self) -> None:
        """Once the spool is empty, give what it took up back to the disk, and reserve again."""
        with contextlib.suppress(OSError), self._turns.turn(ADD_LIMIT):
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._database.execute("VACUUM")
            _allocate(self._reserve)


_ADD: Final = "INSERT INTO spool (spooled_at, postbacks, batch) VALUES (?, ?, ?)"


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
    (mode,) = database.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise sqlite3.DatabaseError(
            f"SQLite keeps to journal_mode {mode} here and needs WAL; use a local file system"
        )
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
    database.execute(
        "CREATE TABLE IF NOT EXISTS set_aside ("
        " id INTEGER PRIMARY KEY AUTOINCREMENT,"
        " spooled_at REAL NOT NULL,"
        " postbacks INTEGER NOT NULL,"
        " batch BLOB NOT NULL)"
    )
    database.execute("CREATE TABLE IF NOT EXISTS filler (id INTEGER PRIMARY KEY, filler BLOB)")
    # Holds all that `depth` asks for, so that asking does not read the batches.
    database.execute("CREATE INDEX IF NOT EXISTS depth ON spool (spooled_at, postbacks)")
