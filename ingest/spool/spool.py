"""The spool as the event loop sees it: a durable queue of batches, with its health.

A batch is on disk when `add` returns. Several processes may share the file; one of them drains it.
`SpoolFile` is the file, `SpoolThread` the thread that writes it.
"""

import asyncio
import contextlib
import math
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from ingest.spool import spool_file
from ingest.spool.database import primary_code
from ingest.spool.drain_lock import DrainLock
from ingest.spool.spool_file import Depth, Piece, Spooled, SpoolFile
from ingest.spool.thread import STUCK_AFTER, SpoolThread
from shared.errors import SettingsError, SpoolUnavailableError

CHECK_AFTER: Final = 1.0
"""Seconds after the last write from which `check` writes again."""

_SIZE_LIMIT: Final = (
    "it has reached MMS_SPOOL_MAX_BYTES or its disk is full; bring RabbitMQ back, or make room"
)
_T = TypeVar("_T")


class Spool:
    """A bounded first-in-first-out queue of batches in one file.

    Args:
        path: created with its folder when it does not exist.
        max_bytes: limit of the file's size.

    Raises:
        SettingsError: the file cannot be opened or is not a spool.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._write_error: str | None = None
        self._last_written = -math.inf
        self._read_failed = False
        self._drain_lock = DrainLock(path)
        self._thread = SpoolThread()
        try:
            self._file = self._thread.run_blocking(lambda: SpoolFile(path, max_bytes))
        except (OSError, sqlite3.Error) as error:
            self._thread.close()
            message = f"MMS_SPOOL_PATH is {path}, which cannot be used as a spool: {error}"
            raise SettingsError(message) from error

    @property
    def depth(self) -> Depth:
        """How full it is, as of the last call."""
        return self._file.depth

    @property
    def set_aside_postbacks(self) -> int:
        """How many postbacks are in batches that were set aside."""
        return self._file.set_aside_postbacks

    @property
    def problem(self) -> str | None:
        """Why a batch added now would be refused, as far as is known; see `check`."""
        if self._thread.stuck:
            return f"the spool {self._path} has not responded for over {STUCK_AFTER:g} s"
        if (problem := self._file.problem) is not None:
            return f"the spool {self._path} failed: {problem}"
        return self._write_error

    @property
    def readable(self) -> bool:
        """Whether its batches can be drained, as far as is known."""
        return not (self._read_failed or self._thread.stuck)

    async def add(self, encoded: bytes, postbacks: int) -> None:
        """Write a batch; returns when it is on disk.

        Args:
            postbacks: how many the batch holds, for `depth`.

        Raises:
            SpoolUnavailableError: the spool or its disk is full or broken, or too slow.
        """
        await self._write(lambda: self._file.insert(encoded, postbacks))

    async def check(self) -> None:
        """Bring `problem` up to date: write a filler, unless a batch was just added.

        A spool that is full or on a broken disk fails only when it is written to.
        """
        if self._write_error is not None or time.monotonic() - self._last_written >= CHECK_AFTER:
            with contextlib.suppress(SpoolUnavailableError):
                await self._write(self._file.write_filler)

    async def oldest(self, limit: int) -> list[Spooled]:
        """Up to `limit` batches, oldest first; several have at most `spool_file.MAX_READ` bytes.

        Raises:
            SpoolUnavailableError: the disk or the file is broken.
        """
        try:
            batches = await self._run(lambda: self._file.oldest(limit))
        except SpoolUnavailableError:
            self._read_failed = True
            raise
        self._read_failed = False
        return batches

    async def remove(self, ids: Sequence[int]) -> None:
        """Remove batches that RabbitMQ has confirmed.

        Raises:
            SpoolUnavailableError: the disk is full or broken; nothing was removed.
        """
        await self._run(lambda: self._file.delete(ids))

    async def replace(
        self, spooled: Spooled, pieces: Sequence[Piece], set_aside: Sequence[Piece]
    ) -> None:
        """Replace one batch by others, in one transaction.

        Args:
            pieces: to be drained.
            set_aside: to be set aside.

        Raises:
            SpoolUnavailableError: the disk is full or broken; nothing was changed.
        """
        await self._run(lambda: self._file.replace(spooled, pieces, set_aside))

    async def restore_set_aside(self) -> None:
        """Drain the batches that were set aside too; RabbitMQ may accept them now.

        Raises:
            SpoolUnavailableError: the disk is full or broken; nothing was changed.
        """
        await self._run(self._file.restore_set_aside)

    async def measure(self) -> Depth:
        """Bring `depth` up to date; another process may share the file.

        Raises:
            SpoolUnavailableError: the disk or the file is broken.
        """
        await self._run(self._file.measure_and_restore_reserve)
        return self.depth

    @property
    def drained_here(self) -> bool:
        """Whether this process is the one that drains."""
        return self._drain_lock.held

    def lock_for_draining(self) -> bool:
        """Try to become the process that drains; whether this process is it.

        Raises:
            SpoolUnavailableError: the lock file cannot be opened.
        """
        try:
            return self._drain_lock.acquire()
        except OSError as error:
            raise SpoolUnavailableError(f"the spool {self._path} failed: {error}") from error

    async def aclose(self) -> None:
        """Close the file; its batches stay for the next process."""
        try:
            await self._run(self._file.close)
        finally:
            self._thread.close()
            self._drain_lock.release()

    async def _write(self, write: Callable[[], None]) -> None:
        """Write within `WRITE_LIMIT`, and record for `problem` whether it succeeded.

        Raises:
            SpoolUnavailableError: see `add`.
        """
        try:
            async with asyncio.timeout(spool_file.WRITE_LIMIT):
                await self._run(write)
        except TimeoutError as error:
            message = f"the spool {self._path} took over {spool_file.WRITE_LIMIT:g} s"
            self._write_error = message
            raise SpoolUnavailableError(message) from error
        except SpoolUnavailableError as error:
            self._write_error = str(error)
            raise
        self._write_error = None
        self._last_written = time.monotonic()

    async def _run(self, call: Callable[[], _T]) -> _T:
        try:
            return await self._thread.run(call)
        except (sqlite3.Error, OSError) as error:
            full = primary_code(error) == sqlite3.SQLITE_FULL
            reason = _SIZE_LIMIT if full else error
            raise SpoolUnavailableError(f"the spool {self._path} failed: {reason}") from error
