"""Group commit: postbacks that arrive during a commit go into the next one.

When no commit is in progress, a postback is committed at once, unless recent arrivals say that its
batch will fill within a few milliseconds, see `linger`. Under load the batches grow, so many
postbacks share the cost of one commit. A second commit starts beside another one only with a large
batch: small batches side by side cost more, up to the worker, and under load no postback is durable
sooner.
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

from ingest.linger import Linger
from shared.errors import DeadlineExceededError, OverloadedError, PostbacksError
from shared.postback.envelope import MAX_BYTES, MAX_POSTBACKS, Arrival
from shared.rate_limited_log import RateLimitedLog

SWEEP_INTERVAL: Final = 0.25
"""Seconds between two looks for arrivals whose deadline has passed."""

MIN_PARALLEL_BATCH: Final = 32
"""Arrivals that must wait before a commit starts beside another one. A batch of this size is full
enough: it does not wait for more."""

_ARRIVAL_OVERHEAD: Final = 64
"""Bytes of an arrival in the envelope beside its texts, at most."""

log: Final = logging.getLogger(__name__)

_refusals: Final = RateLimitedLog(log)

_ENDED: Final = PostbacksError("not durable: the ingress is stopping; send the postback again")

Result = str | PostbacksError
"""The id of the batch in which an arrival is durable, or the reason why it is not durable."""

Commit = Callable[[Sequence[Arrival]], Awaitable[str]]
OnDone = Callable[[Result], None]


class Batcher:
    """Collects arrivals into batches and commits them, a few at a time.

    Args:
        commit: makes a batch durable and returns its id, or raises a `PostbacksError`; must limit
            its own time.
        in_flight: commits in progress at once. Beside another one, a commit has at least
            `MIN_PARALLEL_BATCH` arrivals.
        max_waiting: arrivals that may wait for a commit.
        largest: bytes of the largest batch that can be committed now. A batch of one arrival may be
            larger.
        linger: seconds that an arrival waits at most for its batch to fill; 0: it never does.
    """

    def __init__(
        self,
        commit: Commit,
        *,
        in_flight: int = 2,
        max_waiting: int = 10_000,
        largest: Callable[[], float] = lambda: MAX_BYTES,
        linger: float = 0.0,
    ) -> None:
        self._commit = commit
        self._largest = largest
        self._in_flight = in_flight
        self._max_waiting = max_waiting
        self._linger = Linger(linger)
        self._waiting: deque[_Waiting] = deque()
        self._in_progress: list[list[_Waiting]] = []
        self._oldest_at = 0.0  # when the first of `_waiting` arrived, or one taken before it
        self._enough = 1  # arrivals that start a commit now
        self._batch_due = asyncio.Event()
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

    def submit(self, arrival: Arrival, deadline: float = math.inf) -> asyncio.Future[str]:
        """Queue an arrival; the future returns the id of the batch in which it is durable.

        Args:
            deadline: on the event loop's clock. At most `SWEEP_INTERVAL` after it the future raises
                `DeadlineExceededError`; an arrival that is in no commit by then is dropped.

        Raises:
            OverloadedError: `max_waiting` arrivals wait already. The future raises the
                `PostbacksError` of the commit when its batch could not be made durable.
        """
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.enqueue(arrival, deadline, functools.partial(_resolve_future, future))
        return future

    def enqueue(self, arrival: Arrival, deadline: float, on_done: OnDone) -> None:
        """As `submit`, with a callback: `on_done` is called once, after this method returns.

        Raises:
            OverloadedError: `max_waiting` arrivals wait already.
        """
        if self.full:
            error = OverloadedError()
            _log_refusal(error)
            raise error
        waiting = self._waiting
        if not waiting:
            self._oldest_at = asyncio.get_running_loop().time()
        waiting.append(_Waiting(arrival, deadline, on_done))
        if len(waiting) >= self._enough:
            self._batch_due.set()

    async def run(self) -> None:
        """Commit batches until `stop` is called and no arrival waits.

        However it ends, each arrival gets a result, and no further arrival can be submitted.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                sweep = tasks.create_task(self._sweep_deadlines())
                async with asyncio.TaskGroup() as committers:
                    for _ in range(self._in_flight):
                        committers.create_task(self._commit_batches())
                sweep.cancel()
        finally:
            self._ended = True
            while self._waiting:
                self._waiting.popleft().resolve(_ENDED)

    def stop(self) -> None:
        """Let `run` return when all arrivals are committed."""
        self._stopping = True
        self._set_enough()
        self._batch_due.set()

    async def _commit_batches(self) -> None:
        while True:
            if len(self._waiting) < self._enough:
                if self._stopping:
                    return
                self._batch_due.clear()
                await self._batch_due.wait()
                continue
            if not self._in_progress:
                await self._let_fill()
                if len(self._waiting) < self._enough:  # another committer has taken the batch
                    continue
            batch = self._take_batch()
            if not batch:
                continue
            self._in_progress.append(batch)
            self._set_enough()
            result: Result = _ENDED
            try:
                result = await self._commit_one(batch)
            finally:
                self._linger.committed(len(self._waiting) + sum(map(len, self._in_progress)))
                self._in_progress.remove(batch)
                self._set_enough()
                for waiting in batch:
                    waiting.resolve(result)

    async def _let_fill(self) -> None:
        """Wait while the batch fills: until it is full, arrivals pause, or the limit is reached."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        end = self._oldest_at + self._linger.limit
        self._set_enough(min(max(1, self._linger.wanted(now)), MIN_PARALLEL_BATCH))
        before = 0
        while before < len(self._waiting) < self._enough and now < end:
            before = len(self._waiting)
            timer = loop.call_at(min(end, now + self._linger.pause(now)), self._batch_due.set)
            self._batch_due.clear()
            await self._batch_due.wait()
            timer.cancel()
            now = loop.time()
        self._set_enough()

    def _set_enough(self, alone: int = 1) -> None:
        """Set how many arrivals start a commit: `alone` when no other one is in progress."""
        beside = MIN_PARALLEL_BATCH if self._in_progress else alone
        self._enough = 1 if self._stopping else beside

    async def _commit_one(self, batch: "list[_Waiting]") -> Result:
        try:
            return await self._commit([waiting.arrival for waiting in batch])
        except PostbacksError as error:
            _log_refusal(error)
            return error
        except Exception as error:  # a defect: this batch is refused, the others go on
            log.exception("a batch could not be committed")
            return PostbacksError(f"not durable: {type(error).__name__}")

    def _take_batch(self) -> "list[_Waiting]":
        batch: list[_Waiting] = []
        size = 0
        largest = min(MAX_BYTES, self._largest())
        while self._waiting and len(batch) < MAX_POSTBACKS:
            waiting = self._waiting[0]
            size += len(waiting.arrival.body) + len(waiting.arrival.content_type)
            size += _ARRIVAL_OVERHEAD
            if batch and size > largest:
                break
            self._waiting.popleft()
            if waiting.on_done is not None:  # else its deadline has passed
                batch.append(waiting)
        self._linger.taken(len(batch), asyncio.get_running_loop().time())
        return batch

    async def _sweep_deadlines(self) -> None:
        """Resolve arrivals whose deadline has passed. A sweep costs less than a timer for each."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            now = loop.time()
            # A list, because a response may enqueue the next request of its connection.
            expired = [
                waiting
                for waiting in itertools.chain(self._waiting, *self._in_progress)
                if waiting.deadline <= now and waiting.on_done is not None
            ]
            for waiting in expired:
                error = DeadlineExceededError()
                _log_refusal(error)
                waiting.resolve(error)


class _Waiting(msgspec.Struct):
    """One arrival without a result.

    Attributes:
        on_done: None when it was called.
    """

    arrival: Arrival
    deadline: float
    on_done: OnDone | None

    def resolve(self, result: Result) -> None:
        """Call `on_done`, the first time."""
        on_done, self.on_done = self.on_done, None
        if on_done is not None:
            try:
                on_done(result)
            except Exception:  # a defect: the other arrivals still get their result
                log.exception("a response could not be sent")


def _log_refusal(error: PostbacksError) -> None:
    _refusals.warning(type(error).__name__, "postbacks are answered 503: %s", error)


def _resolve_future(future: asyncio.Future[str], result: Result) -> None:
    if future.done():  # its request was cancelled
        return
    if isinstance(result, str):
        future.set_result(result)
    else:
        future.set_exception(result)
