"""The supervisor of processes: starts them in groups, restarts what ends, stops them in order.

A process that ends is started again after a pause. The pause doubles with each failure, up to
`MAX_PAUSE`. When a process has run for `SETTLED_AFTER` seconds, its next pause is short again.
`--processes N`, `make run` and `make site` use this supervisor. `components` supervises the tasks
inside one process.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Protocol, Self

from shared.backoff import backoff
from shared.errors import StartError

SETTLED_AFTER: Final = 60.0
"""Seconds after which a process counts as running well; its next pause is a short one."""

MAX_PAUSE: Final = 30.0
"""Seconds at most between the end of a process and its restart."""


class Process(Protocol):
    """A process that can be supervised.

    Attributes:
        name: what messages call it, such as `mms-worker 2`.
    """

    name: str

    async def start(self) -> None:
        """Start the process and return when it is ready.

        Raises:
            StartError: it did not start.
        """

    async def wait(self) -> str:
        """Wait until the process has ended; return how it ended, such as `status 1`.

        Raises:
            SettingsError: it is of no use to start it again.
        """

    async def stop(self) -> None:
        """Ask the process to end, and kill it after its limit; do nothing if it does not run."""


class Supervisor:
    """Supervises processes for as long as the context lasts, and stops them when it ends.

    Leaving the context may raise a group with the error that `Process.wait` raised; the body of
    the context is cancelled then.

    Args:
        report: called with one line when a process has ended or could not be started again.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._groups: list[Sequence[Process]] = []
        self._tasks = asyncio.TaskGroup()
        self._running: list[asyncio.Task[None]] = []

    async def start(self, processes: Sequence[Process]) -> None:
        """Start a group of processes at the same time; return when all are ready.

        From then on each of them is started again when it ends.

        Raises:
            ExceptionGroup: with the `StartError` of each process that did not start.
        """
        self._groups.append(processes)
        async with asyncio.TaskGroup() as starting:
            for process in processes:
                starting.create_task(process.start())
        self._running += [self._tasks.create_task(self._restart(each)) for each in processes]

    async def _restart(self, process: Process) -> None:
        """Start a process again whenever it ends."""
        failures = 0
        while True:
            ready_at = time.monotonic()
            how = await process.wait()
            settled = time.monotonic() - ready_at > SETTLED_AFTER
            failures = 0 if settled else failures + 1
            self._report(f"{process.name} ended with {how}; starting it again")
            failures = await self._start_again(process, failures)

    async def _start_again(self, process: Process, failures: int) -> int:
        """Start a process, however many attempts it takes; return the number of failures."""
        while True:
            await backoff(failures, longest=MAX_PAUSE)
            try:
                await process.start()
            except StartError as error:
                self._report(str(error))
                failures += 1
            else:
                return failures

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in self._running:
            task.cancel()
        try:
            await self._tasks.__aexit__(kind, error, traceback)
        finally:
            for processes in reversed(self._groups):
                async with asyncio.TaskGroup() as stopping:
                    for process in processes:
                        stopping.create_task(process.stop())
