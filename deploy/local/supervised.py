"""Children for the supervisor of processes: it does not block, and prints lines of progress."""

import asyncio
import contextlib
import signal
from collections.abc import Iterator, Sequence

from deploy.local.child import Child
from deploy.local.foreground import progress
from deploy.local.ports import HOST


class ChildExits:
    """Waits for the end of children; the kernel announces each end with SIGCHLD."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Event] = []

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Receive SIGCHLD for as long as the context lasts; `wait` works only inside it."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._wake)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGCHLD)

    async def wait(self, child: Child) -> None:
        """Wait until a child has ended."""
        some_child_ended = asyncio.Event()
        self._waiting.append(some_child_ended)
        try:
            while child.is_alive():
                await some_child_ended.wait()
                some_child_ended.clear()
        finally:
            self._waiting.remove(some_child_ended)

    def _wake(self) -> None:
        for some_child_ended in self._waiting:
            some_child_ended.set()


class SupervisedChild:
    """A child, for the supervisor."""

    def __init__(self, child: Child, exits: ChildExits) -> None:
        self.name = child.name
        self._child = child
        self._exits = exits

    async def start(self) -> None:
        port = getattr(self._child, "port", None)
        progress(f"starting {self.name}{f' on {HOST}:{port}' if port else ''}")
        await asyncio.to_thread(self._child.start)
        progress(f"{self.name} is ready")

    async def wait(self) -> str:
        await self._exits.wait(self._child)
        return f"status {self._child.status} (its log: {self._child.log_path})"

    async def stop(self) -> None:
        if self._child.pid is None:
            return
        if self._child.is_alive():
            progress(f"stopping {self.name}")
        await asyncio.to_thread(self._child.stop)


def supervised(children: Sequence[Child], exits: ChildExits) -> list[SupervisedChild]:
    """These children, for the supervisor."""
    return [SupervisedChild(child, exits) for child in children]
