"""The long-lived components of a process: when one ends unexpectedly, the process ends.

A process whose batcher or publisher has ended looks alive and does nothing. Therefore each
component runs as a task of `Components`. When a component ends before the process must stop,
with or without an error, the others are cancelled, the process cleans up and exits with a non-zero
status. The supervisor of the process (`supervisor`, systemd, Kubernetes) starts it again.
"""

import asyncio
import logging
from collections.abc import Coroutine
from types import TracebackType
from typing import Final, Self

from shared.errors import ComponentEndedError, SettingsError, TopologyConflictError
from shared.process import watchdog

CANCEL_INTERVAL: Final = 0.5
"""Seconds after which a component that was cancelled and still runs is cancelled again."""

log: Final = logging.getLogger(__name__)


class Components:
    """Runs components for as long as the context lasts, and cancels them when it ends.

    Leaving the context may raise a group with a `ComponentEndedError`, a `SettingsError` or a
    `TopologyConflictError`; the body of the context is cancelled then.

    Attributes:
        stopping: set it before you ask components to return; from then on they may end.
        problem: which component ended unexpectedly and why, for `/readyz`; None while all run.
    """

    def __init__(self) -> None:
        self.stopping = False
        self._group = asyncio.TaskGroup()
        self._running: list[asyncio.Task[None]] = []
        self.problem: str | None = None

    def start(self, name: str, component: Coroutine[None, None, None]) -> "asyncio.Task[None]":
        """Run a component; it should not return before `stopping` is set."""
        task = self._group.create_task(self._run(name, component))
        self._running.append(task)
        return task

    async def _run(self, name: str, component: Coroutine[None, None, None]) -> None:
        try:
            await component
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self.stopping or (task is not None and task.cancelling()):
                raise
            why = "a function that it called cancelled it"
        except (SettingsError, TopologyConflictError):  # an operator must act; the error says how
            watchdog.end_within(watchdog.END_LIMIT)
            raise
        except Exception as error:
            log.critical("the %s failed; the process ends", name, exc_info=error)
            why = f"{type(error).__name__}, see the log"
        else:
            if self.stopping:
                return
            why = "it returned"
        watchdog.end_within(watchdog.END_LIMIT)
        self.problem = f"the {name} ended unexpectedly: {why}"
        raise ComponentEndedError(self.problem)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stopping = True
        while running := [task for task in self._running if not task.done()]:
            for task in running:
                task.cancel()  # a library may lose a cancellation, so this is repeated
            await asyncio.wait(running, timeout=CANCEL_INTERVAL)
        await self._group.__aexit__(kind, error, traceback)
