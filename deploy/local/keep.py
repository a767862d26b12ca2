"""Keeps children running: starts them in order, starts again what ends, stops them in reverse."""

import asyncio
import contextlib
import fcntl
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from deploy.local.child import Child
from deploy.local.ports import HOST
from shared.errors import StartError

SETTLED: Final = 60.0
"""Seconds after which a child counts as running well; its next restart is a quick one again."""

LONGEST_PAUSE: Final = 30.0
"""Seconds at most between the end of a child and its restart."""

_STARTED: Final = time.monotonic()


class Keeper:
    """The children of one run.

    Args:
        groups: those of one group are started together, when all of the group before are ready.
        prepare: what to do once the first group is ready, before the next one is started.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[Child]],
        prepare: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._groups = groups
        self._prepare = prepare
        self._ended: list[asyncio.Event] = []

    @property
    def _children(self) -> list[Child]:
        return [child for group in self._groups for child in group]

    async def start(self) -> None:
        """Start all of them and return when they are ready.

        Raises:
            StartError: one did not start; the others may run.
        """
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._child_ended)
        for group in self._groups:
            async with asyncio.TaskGroup() as starting:
                for child in group:
                    starting.create_task(_start(child))
            if group is self._groups[0] and self._prepare is not None:
                await self._prepare()

    async def keep(self) -> None:
        """Start again what ends, for ever."""
        async with asyncio.TaskGroup() as keeping:
            for child in self._children:
                keeping.create_task(self._keep(child))

    async def stop(self) -> None:
        """Stop all that was started, the last started first."""
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)
        for child in reversed(self._children):
            await stop(child)

    async def end_of(self, child: Child) -> None:
        """Wait until a child runs no more; it need not be one of ours."""
        ended = asyncio.Event()
        self._ended.append(ended)
        try:
            while child.is_alive():
                await ended.wait()
                ended.clear()
        finally:
            self._ended.remove(ended)

    async def _keep(self, child: Child) -> None:
        pause = 1.0
        while True:
            started = time.monotonic()
            await self.end_of(child)
            if time.monotonic() - started > SETTLED:
                pause = 1.0
            say(f"{child.name} has ended, see {child.log_path}; starting again in {pause:.0f} s")
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
            try:
                await _start(child)
            except StartError as error:
                say(str(error))

    def _child_ended(self) -> None:
        for ended in self._ended:
            ended.set()


async def stop(child: Child) -> None:
    """Stop one child if it was ever started."""
    if child.pid is not None:
        if child.is_alive():
            progress(f"stopping {child.name}")
        await asyncio.to_thread(child.stop)


async def _start(child: Child) -> None:
    port = getattr(child, "port", None)
    progress(f"starting {child.name}{f' on {HOST}:{port}' if port else ''}")
    await asyncio.to_thread(child.start)
    progress(f"{child.name} is ready")


@contextlib.contextmanager
def only_one(var: Path, command: str) -> Iterator[None]:
    """Keep a second run out of this folder.

    Raises:
        StartError: there is one already.
    """
    var.mkdir(parents=True, exist_ok=True)
    with (var / "run.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StartError(
                f"`{command}` is already running in {var}; stop it, or give this one another folder"
                f" ({command} VAR=<folder>)"
            ) from error
        yield


def progress(text: str) -> None:
    """Say something with the seconds since we were started."""
    say(f"{time.monotonic() - _STARTED:6.1f} s  {text}")


def say(text: str) -> None:
    """One line for whoever watches."""
    with contextlib.suppress(OSError):  # the terminal may be gone; then there is still much to stop
        print(text, flush=True)
