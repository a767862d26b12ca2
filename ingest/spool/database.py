"""Opens the SQLite database of a spool: WAL mode, fsync at each commit, a size limit, the tables.

An inserted batch is on disk and survives kill -9 and power loss, because of `synchronous = FULL`.
"""

import random
import sqlite3
import time
from pathlib import Path
from typing import Final

from shared.postback.formats import FORMAT

OPEN_LIMIT: Final = 5.0
"""Seconds to wait for another process that creates or closes the same file."""

_PAGE: Final = 4096
_MIN_PAGES: Final = 16
_MAX_LOG: Final = 16 * 1024 * 1024
"""Bytes that SQLite's log keeps on disk."""

_BATCHES: Final = (
    "(id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " spooled_at REAL NOT NULL,"
    " postbacks INTEGER NOT NULL,"
    " batch BLOB NOT NULL)"
)
_SCHEMA: Final = (
    f"CREATE TABLE IF NOT EXISTS spool {_BATCHES}",
    f"CREATE TABLE IF NOT EXISTS set_aside {_BATCHES}",
    "CREATE TABLE IF NOT EXISTS filler (id INTEGER PRIMARY KEY, filler BLOB)",
    # Covers the query of the depth, so that it does not read the batches.
    "CREATE INDEX IF NOT EXISTS depth ON spool (spooled_at, postbacks)",
)


def open_database(path: Path, max_bytes: int, lock_limit: float) -> sqlite3.Connection:
    """Open the database, or create it, also while other processes do the same.

    SQLite does not wait, whatever its timeout, while another process turns a file into WAL mode.

    Args:
        max_bytes: limit of the file's size.
        lock_limit: seconds that a statement waits for SQLite's lock.

    Raises:
        sqlite3.Error: the file cannot be opened or is not a spool.
    """
    deadline = time.monotonic() + OPEN_LIMIT
    while True:
        try:
            return _open_once(path, max_bytes, lock_limit)
        except sqlite3.OperationalError as error:
            busy = primary_code(error) == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
        time.sleep(random.uniform(0.01, 0.05))  # noqa: S311


def primary_code(error: Exception) -> int:
    """SQLite's primary result code of an error; 0 when it is not SQLite's."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF if isinstance(code, int) else 0


def _open_once(path: Path, max_bytes: int, lock_limit: float) -> sqlite3.Connection:
    database = sqlite3.connect(
        path, timeout=lock_limit, isolation_level=None, check_same_thread=False
    )
    try:
        _configure(database, max_bytes)
        _check_format(database)
        for statement in _SCHEMA:
            database.execute(statement)
    except sqlite3.Error:
        database.close()
        raise
    return database


def _configure(database: sqlite3.Connection, max_bytes: int) -> None:
    database.execute(f"PRAGMA page_size = {_PAGE}")
    (mode,) = database.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise sqlite3.DatabaseError(
            f"SQLite keeps to journal_mode {mode} here and needs WAL; use a local file system"
        )
    database.execute("PRAGMA synchronous = FULL")
    database.execute(f"PRAGMA max_page_count = {max(_MIN_PAGES, max_bytes // _PAGE)}")
    database.execute(f"PRAGMA journal_size_limit = {_MAX_LOG}")


def _check_format(database: sqlite3.Connection) -> None:
    """Format 0 is a new file, or one of the first release, whose format is 1."""
    (written,) = database.execute("PRAGMA user_version").fetchone()
    if written > FORMAT:
        raise sqlite3.DatabaseError(f"format {written} was written by a newer release")
    if written < FORMAT:
        database.execute(f"PRAGMA user_version = {FORMAT}")
