"""Group commit: what arrives while a commit is under way goes into the next one.

No timer: when nothing is under way a postback goes out alone at once, and the busier it gets the
larger the batches become. So the cost of a durable answer is shared exactly when there is something
to share it among. Only a good batch starts while another is still under way: small ones side by
side would cost everybody more, up to the worker, and answer nobody sooner when it is busy.
"""

import asyncio
import functools
import itertools
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from shared.errors import DeadlineExceededError, OverloadedError, PostbacksError
from shared.postback.envelope import MAX_BYTES, MAX_POSTBACKS, Arrival
from shared.rate_limited_log import RateLimitedLog

SWEEP: Final = 0.25
"""Seconds between two looks for what is overdue."""

MIN_PARALLEL_BATCH: Final = 32
"""Arrivals that are worth a commit beside one that is under way."""

_OVERHEAD: Final = 64  # bytes of an arrival in the envelope beside its texts, generously

log: Final = logging.getLogger(__name__)

_refusals: Final = RateLimitedLog(log)

_ENDED: Final = PostbacksError("not durable: the ingress is stopping; send the postback again")

Commit = Callable[[Sequence[Arrival]], Awaitable[str]]
OnDone = Callable[[str | PostbacksError], None]
"""Is called once with a result: the id of the batch that is durable, or why none is."""


class Batcher:
    """Collects arrivals into batches and commits them, a few at a time.

    Args:
        commit: makes a batch durable and returns its id, or raises a `PostbacksError`; must limit
            its own time.
        in_flight: commits under way at once. Beside another one, a commit has at least
            `MIN_PARALLEL_BATCH` arrivals.
        max_waiting: arrivals that may wait for their turn.
        largest: bytes of the largest batch that can be committed now, unless it holds one arrival.
    """

    def __init__(
        self,
        commit: Commit,
        *,
        in_flight: int = 2,
        max_waiting: int = 10_000,
        largest: Callable[[], float] = lambda: MAX_BYTES,
    ) -> None:
        self._commit = commit
        self._largest = largest
        self._in_flight = in_flight
        self._max_waiting = max_waiting
        self._waiting: deque[_Waiting] = deque()
        self._under_way: list[list[_Waiting]] = []
        self._something_waits = asyncio.Event()
        self._stopping = False
        self._ended = False

    @property
    def waiting(self) -> int:
        """Arrivals that are in no commit yet."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether no arrival can be submitted now."""
        return self._ended or len(self._waiting) >= self._max_waiting

    @property
    def _worth_it(self) -> bool:
        """Whether something waits that should be committed now."""
        alone = not self._under_way or self._stopping
        return bool(self._waiting) and (alone or len(self._waiting) >= MIN_PARALLEL_BATCH)

    def submit(self, arrival: Arrival, deadline: float = math.inf) -> asyncio.Future[str]:
        """Queue an arrival; the future is the id of the batch in which it is durable.

        Args:
            deadline: on the event loop's clock; within `SWEEP` after it the future raises
                `DeadlineExceededError`, and what was in no commit yet never will be.

        Raises:
            OverloadedError: `max_waiting` arrivals wait already. The future raises the
                `PostbacksError` of the commit when its batch could not be made durable.
        """
        result: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.enqueue(arrival, deadline, functools.partial(_settle, result))
        return result

    def enqueue(self, arrival: Arrival, deadline: float, on_done: OnDone) -> None:
        """As `submit`, without a future: `told` is called, though not before this returns.

        Raises:
            OverloadedError: see there.
        """
        if self.full:
            error = OverloadedError()
            _log_refusal(error)
            raise error
        self._waiting.append(_Waiting(arrival, deadline, on_done))
        if self._worth_it:
            self._something_waits.set()

    async def run(self) -> None:
        """Commit batches until `stop` is called and nothing waits any more.

        However it ends, whatever was submitted is answered and nothing can be submitted any more.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                sweeping = tasks.create_task(self._give_up_overdue())
                async with asyncio.TaskGroup() as committers:
                    for _ in range(self._in_flight):
                        committers.create_task(self._commit_batches())
                sweeping.cancel()
        finally:
            self._ended = True
            while self._waiting:
                self._waiting.popleft().resolve(_ENDED)

    def stop(self) -> None:
        """Let `run` return when all that was submitted has been committed."""
        self._stopping = True
        self._something_waits.set()

    async def _commit_batches(self) -> None:
        while True:
            if not self._worth_it:
                if self._stopping:
                    return
                self._something_waits.clear()
                await self._something_waits.wait()
                continue
            batch = self._take()
            if not batch:
                continue
            self._under_way.append(batch)
            result: str | PostbacksError = _ENDED
            try:
                result = await self._result(batch)
            finally:
                self._under_way.remove(batch)
                for waiting in batch:
                    waiting.resolve(result)

    async def _result(self, batch: "list[_Waiting]") -> str | PostbacksError:
        try:
            return await self._commit([waiting.arrival for waiting in batch])
        except PostbacksError as error:
            _log_refusal(error)
            return error
        except Exception as error:  # a defect of ours: one batch is refused, the rest goes on
            log.exception("a batch could not be committed")
            return PostbacksError(f"not durable: {type(error).__name__}")

    def _take(self) -> "list[_Waiting]":
        batch: list[_Waiting] = []
        size = 0
        largest = min(MAX_BYTES, self._largest())
        while self._waiting and len(batch) < MAX_POSTBACKS:
            waiting = self._waiting[0]
            size += len(waiting.arrival.body) + len(waiting.arrival.content_type) + _OVERHEAD
            if batch and size > largest:
                break
            self._waiting.popleft()
            if waiting.on_done is not None:  # else it was given up
                batch.append(waiting)
        return batch

    async def _give_up_overdue(self) -> None:
        """One look at all from time to time costs less than a timer for each."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP)
            now = loop.time()
            # Answering one may submit the next of its connection: not while looking at all of them.
            overdue = [
                waiting
                for waiting in itertools.chain(self._waiting, *self._under_way)
                if waiting.deadline <= now and waiting.on_done is not None
            ]
            for waiting in overdue:
                error = DeadlineExceededError()
                _log_refusal(error)
                waiting.resolve(error)


class _Waiting(msgspec.Struct):
    arrival: Arrival
    deadline: float
    on_done: OnDone | None

    def resolve(self, result: str | PostbacksError) -> None:
        """Unless it was told before."""
        on_done, self.on_done = self.on_done, None
        if on_done is not None:
            try:
                on_done(result)
            except Exception:  # a defect of ours; the others get their answers
                log.exception("an answer could not be given")


def _log_refusal(error: PostbacksError) -> None:
    _refusals.warning(type(error).__name__, "postbacks are answered 503: %s", error)


def _settle(future: asyncio.Future[str], result: str | PostbacksError) -> None:
    if future.done():  # its request was given up
        return
    if isinstance(result, str):
        future.set_result(result)
    else:
        future.set_exception(result)
