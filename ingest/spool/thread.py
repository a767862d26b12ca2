"""The thread on which the SQLite calls of a spool run, so that an fsync never blocks the loop."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

STUCK_AFTER: Final = 1.0
"""Seconds after which a call that has not returned counts as stuck."""

_T = TypeVar("_T")


class SpoolThread:
    """Runs blocking calls, one after the other."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spool")
        self._call_began: float | None = None

    @property
    def stuck(self) -> bool:
        """Whether the current call takes longer than `STUCK_AFTER`."""
        began = self._call_began
        return began is not None and time.monotonic() - began > STUCK_AFTER

    def run_blocking(self, call: Callable[[], _T]) -> _T:
        """Run a call, and block until it returns."""
        return self._executor.submit(call).result()

    async def run(self, call: Callable[[], _T]) -> _T:
        """Run a call; a call that has begun goes on when the caller is cancelled."""

        def timed() -> _T:
            self._call_began = time.monotonic()
            try:
                return call()
            finally:
                self._call_began = None

        return await asyncio.get_running_loop().run_in_executor(self._executor, timed)

    def close(self) -> None:
        """Accept no further call; does not wait for the current one."""
        self._executor.shutdown(wait=False)
