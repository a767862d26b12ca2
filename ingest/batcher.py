"""Group commit: what arrives while a commit is under way goes into the next one.

No timer and no target size: when nothing is under way a postback goes out alone at once, and the
busier it gets the larger the batches become. So the cost of a durable answer is shared exactly
when there is something to share it among.
"""

import asyncio
import itertools
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from shared.envelope import MAX_BYTES, MAX_POSTBACKS, Arrival
from shared.errors import OverdueError, OverloadedError, PostbacksError

SWEEP: Final = 0.25
"""Seconds between two looks for what is overdue."""

_OVERHEAD: Final = 64  # bytes of an arrival in the envelope beside its texts, generously

log: Final = logging.getLogger(__name__)

Commit = Callable[[Sequence[Arrival]], Awaitable[None]]


class Batcher:
    """Collects arrivals into batches and commits them, a few at a time.

    Args:
        commit: makes a batch durable, or raises a `PostbacksError`; must limit its own time.
        in_flight: commits under way at once.
        max_waiting: arrivals that may wait for their turn.
    """

    def __init__(self, commit: Commit, *, in_flight: int = 2, max_waiting: int = 10_000) -> None:
        self._commit = commit
        self._in_flight = in_flight
        self._max_waiting = max_waiting
        self._waiting: deque[_Waiting] = deque()
        self._under_way: list[list[_Waiting]] = []
        self._something_waits = asyncio.Event()
        self._stopping = False

    @property
    def waiting(self) -> int:
        """Arrivals that are in no commit yet."""
        return len(self._waiting)

    def submit(self, arrival: Arrival, deadline: float = math.inf) -> asyncio.Future[None]:
        """Queue an arrival; the future is done once it is durable.

        Args:
            deadline: on the event loop's clock; within `SWEEP` after it the future raises
                `OverdueError`, and what was in no commit yet never will be.

        Raises:
            OverloadedError: `max_waiting` arrivals wait already. The future raises the
                `PostbacksError` of the commit when its batch could not be made durable.
        """
        if len(self._waiting) >= self._max_waiting:
            raise OverloadedError
        durable = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(arrival, durable, deadline))
        self._something_waits.set()
        return durable

    async def run(self) -> None:
        """Commit batches until `stop` is called and nothing waits any more."""
        async with asyncio.TaskGroup() as tasks:
            sweeping = tasks.create_task(self._give_up_overdue())
            async with asyncio.TaskGroup() as committers:
                for _ in range(self._in_flight):
                    committers.create_task(self._commit_batches())
            sweeping.cancel()

    def stop(self) -> None:
        """Let `run` return when all that was submitted has been committed."""
        self._stopping = True
        self._something_waits.set()

    async def _commit_batches(self) -> None:
        while True:
            await self._something_waits.wait()
            if not self._waiting:
                if self._stopping:
                    return
                self._something_waits.clear()
                continue
            batch = self._take()
            if not batch:
                continue
            self._under_way.append(batch)
            try:
                await self._commit([waiting.arrival for waiting in batch])
            except PostbacksError as error:
                _answer(batch, error)
            except Exception as error:  # a defect of ours: one batch is refused, the rest goes on
                log.exception("a batch could not be committed")
                _answer(batch, PostbacksError(f"not durable: {type(error).__name__}"))
            else:
                _answer(batch, None)
            finally:
                self._under_way.remove(batch)

    def _take(self) -> "list[_Waiting]":
        batch: list[_Waiting] = []
        size = 0
        while self._waiting and len(batch) < MAX_POSTBACKS:
            waiting = self._waiting[0]
            size += len(waiting.arrival.body) + len(waiting.arrival.content_type) + _OVERHEAD
            if batch and size > MAX_BYTES:
                break
            self._waiting.popleft()
            if not waiting.durable.done():  # else its request was given up
                batch.append(waiting)
        return batch

    async def _give_up_overdue(self) -> None:
        """One look at all from time to time costs less than a timer for each."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP)
            now = loop.time()
            for waiting in itertools.chain(self._waiting, *self._under_way):
                if waiting.deadline <= now and not waiting.durable.done():
                    waiting.durable.set_exception(OverdueError())


class _Waiting(NamedTuple):
    arrival: Arrival
    durable: asyncio.Future[None]
    deadline: float


def _answer(batch: list[_Waiting], error: PostbacksError | None) -> None:
    for waiting in batch:
        if waiting.durable.done():  # its request was given up
            continue
        if error is None:
            waiting.durable.set_result(None)
        else:
            waiting.durable.set_exception(error)
