"""Group commit: postbacks that arrive during a commit go into the next one."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Sequence

import pytest

from ingest.batcher import MIN_PARALLEL_BATCH, Batcher, Result
from shared.errors import (
    DeadlineExceededError,
    OverloadedError,
    PostbacksError,
    SpoolUnavailableError,
)
from shared.postback import envelope
from shared.postback.envelope import MAX_BYTES, MAX_POSTBACKS, Arrival
from shared.rate_limited_log import RateLimitedLog


class Commits:
    """Commits that wait until the test ends them, with or without an error."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.sizes: list[int] = []
        self._ends: list[asyncio.Future[None]] = []
        self.in_progress = 0
        self.most_in_progress = 0

    async def __call__(self, batch: Sequence[Arrival]) -> str:
        assert batch
        self.batches.append([arrival.received_at for arrival in batch])
        self.sizes.append(len(envelope.encode(batch)))
        end = asyncio.get_running_loop().create_future()
        self._ends.append(end)
        self.in_progress += 1
        self.most_in_progress = max(self.most_in_progress, self.in_progress)
        try:
            await end
        finally:
            self.in_progress -= 1
        return f"batch {len(self.batches)}"

    def end(self, number: int, error: PostbacksError | None = None) -> None:
        if error is None:
            self._ends[number].set_result(None)
        else:
            self._ends[number].set_exception(error)

    async def end_all(self) -> None:
        number = 0
        while number < len(self._ends):
            if not self._ends[number].done():
                self.end(number)
            number += 1
            await settled()


@pytest.fixture
def commits() -> Commits:
    return Commits()


@pytest.fixture
async def batcher(commits: Commits) -> AsyncIterator[Batcher]:
    """A batcher with one commit at a time, running."""
    batcher = Batcher(commits, in_flight=1, max_waiting=2000)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(batcher.run())
        await settled()
        yield batcher
        batcher.stop()
        await settled()
        await commits.end_all()


async def settled() -> None:
    """Let all tasks run until they wait."""
    for _ in range(10):
        await asyncio.sleep(0)


def arrival(number: int, body: bytes = b"{}") -> Arrival:
    return Arrival(number, "acme", "text/xml", body)


async def test_an_idle_batcher_commits_an_arrival_alone_and_at_once(
    batcher: Batcher, commits: Commits
) -> None:
    durable = batcher.submit(arrival(1))
    await settled()
    assert commits.batches == [[1]]
    assert not durable.done()
    commits.end(0)
    await settled()
    assert durable.done()
    assert durable.result() == "batch 1"


async def test_arrivals_during_a_commit_are_the_next_batch_in_order(
    batcher: Batcher, commits: Commits
) -> None:
    futures = [batcher.submit(arrival(1))]
    await settled()
    for number in range(2, 8):
        futures.append(batcher.submit(arrival(number)))
        await settled()
    assert commits.batches == [[1]]
    assert batcher.waiting == 6
    commits.end(0)
    await settled()
    assert commits.batches == [[1], [2, 3, 4, 5, 6, 7]]
    assert [future.done() for future in futures] == [True] + [False] * 6
    commits.end(1)
    await asyncio.gather(*futures)


async def test_a_failed_commit_fails_only_its_own_batch(batcher: Batcher, commits: Commits) -> None:
    first = batcher.submit(arrival(1))
    await settled()
    second, third = batcher.submit(arrival(2)), batcher.submit(arrival(3))
    commits.end(0)
    await settled()
    fourth = batcher.submit(arrival(4))
    commits.end(1, SpoolUnavailableError("full"))
    await settled()
    commits.end(2)
    await first
    for failed in (second, third):
        with pytest.raises(SpoolUnavailableError, match="full"):
            await failed
    await fourth


async def test_refusals_are_logged_once_for_each_reason(
    batcher: Batcher,
    commits: Commits,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limited = RateLimitedLog(logging.getLogger("ingest.batcher"))
    monkeypatch.setattr("ingest.batcher._refusals", limited)
    with pytest.raises(DeadlineExceededError):
        await batcher.submit(arrival(1), deadline=0.0)
    futures = [batcher.submit(arrival(number)) for number in range(2000)]
    for _ in range(2):
        with pytest.raises(OverloadedError):
            batcher.submit(arrival(2))
    for number in range(5):  # one batch of one arrival, four batches of 500
        commits.end(number, SpoolUnavailableError("the disk is full"))
        await settled()
    await asyncio.gather(*futures, return_exceptions=True)
    reasons = (DeadlineExceededError(), OverloadedError(), "the disk is full")
    assert caplog.messages == [f"postbacks are answered 503: {each}" for each in reasons]


async def test_a_batch_has_at_most_500_postbacks(batcher: Batcher, commits: Commits) -> None:
    futures = [batcher.submit(arrival(number)) for number in range(1200)]
    await settled()
    await commits.end_all()
    await asyncio.gather(*futures)
    assert [len(batch) for batch in commits.batches] == [MAX_POSTBACKS, MAX_POSTBACKS, 200]
    assert [number for batch in commits.batches for number in batch] == list(range(1200))


@pytest.mark.parametrize("size", [50_000, 65_536, 3000, 2100])
async def test_an_encoded_batch_has_at_most_one_mebibyte(
    size: int, batcher: Batcher, commits: Commits
) -> None:
    futures = [batcher.submit(arrival(number, b"x" * size)) for number in range(600)]
    await settled()
    await commits.end_all()
    await asyncio.gather(*futures)
    assert max(commits.sizes) <= MAX_BYTES
    filled = min(MAX_POSTBACKS, MAX_BYTES // (size + 100))
    assert len(commits.batches) == math.ceil(600 / filled)
    assert [number for batch in commits.batches for number in batch] == list(range(600))


async def test_an_arrival_larger_than_a_batch_is_committed_alone(
    batcher: Batcher, commits: Commits
) -> None:
    bodies = [b"x", b"x" * (MAX_BYTES + 1), b"x"]
    futures = [batcher.submit(arrival(number, body)) for number, body in enumerate(bodies)]
    await settled()
    await commits.end_all()
    await asyncio.gather(*futures)
    assert commits.batches == [[0], [1], [2]]


async def test_more_arrivals_than_may_wait_are_refused_at_once(
    batcher: Batcher, commits: Commits
) -> None:
    futures = [batcher.submit(arrival(0))]
    await settled()
    futures += [batcher.submit(arrival(number)) for number in range(2000)]
    with pytest.raises(OverloadedError):
        batcher.submit(arrival(2001))
    commits.end(0)
    await settled()
    futures.append(batcher.submit(arrival(2002)))  # a batch was taken, so there is room
    await commits.end_all()
    await asyncio.gather(*futures)


async def test_a_cancelled_request_does_not_affect_its_batch(
    batcher: Batcher, commits: Commits
) -> None:
    cancelled, other = batcher.submit(arrival(1)), batcher.submit(arrival(2))
    await settled()
    cancelled.cancel()
    commits.end(0)
    await other
    assert cancelled.cancelled()


async def test_no_more_commits_are_in_progress_than_allowed(commits: Commits) -> None:
    batcher = Batcher(commits, in_flight=3)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(batcher.run())
        futures = []
        for number in range(5 * MIN_PARALLEL_BATCH):
            futures.append(batcher.submit(arrival(number)))
            await settled()
        assert [len(batch) for batch in commits.batches] == [
            1,
            MIN_PARALLEL_BATCH,
            MIN_PARALLEL_BATCH,
        ]
        commits.end(1)  # the free committer takes all arrivals that wait
        await settled()
        assert commits.batches[3] == list(range(2 * MIN_PARALLEL_BATCH + 1, 5 * MIN_PARALLEL_BATCH))
        batcher.stop()
        await commits.end_all()
        await asyncio.gather(*futures)
    assert commits.most_in_progress == 3


async def test_a_second_commit_starts_only_with_a_large_batch(commits: Commits) -> None:
    batcher = Batcher(commits, in_flight=2)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(batcher.run())
        futures = [batcher.submit(arrival(0))]
        await settled()
        for number in range(1, MIN_PARALLEL_BATCH):
            futures.append(batcher.submit(arrival(number)))
            await settled()
        assert commits.batches == [[0]]
        futures.append(batcher.submit(arrival(MIN_PARALLEL_BATCH)))
        await settled()
        assert commits.batches == [[0], list(range(1, MIN_PARALLEL_BATCH + 1))]
        futures.append(batcher.submit(arrival(MIN_PARALLEL_BATCH + 1)))
        commits.end(0)
        await settled()
        assert len(commits.batches) == 2  # the other one is still in progress
        commits.end(1)
        await settled()
        assert commits.batches[2] == [MIN_PARALLEL_BATCH + 1]
        batcher.stop()
        await commits.end_all()
        await asyncio.gather(*futures)


async def test_stop_does_not_wait_for_a_large_batch(commits: Commits) -> None:
    batcher = Batcher(commits, in_flight=2)
    running = asyncio.create_task(batcher.run())
    futures = [batcher.submit(arrival(0))]
    await settled()
    futures.append(batcher.submit(arrival(1)))
    await settled()
    assert commits.batches == [[0]]
    batcher.stop()
    await settled()
    assert commits.batches == [[0], [1]]
    await commits.end_all()
    async with asyncio.timeout(10):
        await running
    assert all(future.done() and future.exception() is None for future in futures)


async def test_stop_commits_all_waiting_arrivals_and_then_ends(commits: Commits) -> None:
    batcher = Batcher(commits, in_flight=2)
    running = asyncio.create_task(batcher.run())
    futures = [batcher.submit(arrival(number)) for number in range(1500)]
    batcher.stop()
    await settled()
    assert not running.done()
    await commits.end_all()
    async with asyncio.timeout(10):
        await running
    assert all(future.done() and future.exception() is None for future in futures)


async def test_stop_ends_an_idle_batcher(commits: Commits) -> None:
    batcher = Batcher(commits, in_flight=2)
    running = asyncio.create_task(batcher.run())
    await settled()
    batcher.stop()
    async with asyncio.timeout(10):
        await running
    assert commits.batches == []


async def test_expired_arrivals_get_a_result_although_each_result_enqueues_another(
    commits: Commits,
) -> None:
    """As on a connection that pipelines, in a process that was paused for a while."""
    batcher = Batcher(commits, in_flight=1)
    loop = asyncio.get_running_loop()
    results: list[Result] = []
    allowed = 50

    def on_done(result: Result) -> None:
        results.append(result)
        if len(results) < allowed:
            batcher.enqueue(arrival(0), loop.time(), on_done)

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(batcher.run())
        batcher.enqueue(arrival(0), math.inf, on_done)
        await settled()
        for _ in range(10):
            batcher.enqueue(arrival(0), loop.time(), on_done)
        while len(results) < allowed:
            await asyncio.sleep(0.01)
        assert all(isinstance(result, DeadlineExceededError) for result in results)
        batcher.stop()
        while not batcher.full:  # it is, once it has ended
            await commits.end_all()


async def test_a_callback_that_fails_does_not_affect_the_others(commits: Commits) -> None:
    batcher = Batcher(commits, in_flight=1)
    results: list[Result] = []

    def fails(_result: Result) -> None:
        raise ZeroDivisionError

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(batcher.run())
        for on_done in (results.append, fails, results.append):
            batcher.enqueue(arrival(0), math.inf, on_done)
        await settled()
        await commits.end_all()
        batcher.stop()
        while not batcher.full:
            await commits.end_all()
    assert len(results) == 2


async def test_a_cancelled_batcher_resolves_all_arrivals_and_accepts_no_more(
    commits: Commits,
) -> None:
    batcher = Batcher(commits, in_flight=2)
    running = asyncio.create_task(batcher.run())
    futures = [batcher.submit(arrival(number)) for number in range(700)]
    await settled()
    futures += [batcher.submit(arrival(number)) for number in range(700)]
    await settled()
    running.cancel()
    await asyncio.wait([running], timeout=10)
    for future in futures:
        with pytest.raises(PostbacksError, match="stopping"):
            await future
    with pytest.raises(OverloadedError):
        batcher.submit(arrival(0))


async def test_a_batch_is_no_larger_than_rabbitmq_accepts(commits: Commits) -> None:
    batcher = Batcher(commits, in_flight=1, largest=lambda: 3000)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(batcher.run())
        futures = [batcher.submit(arrival(number, b"x" * 500)) for number in range(50)]
        futures.append(batcher.submit(arrival(50, b"x" * 5000)))
        batcher.stop()
        await settled()
        while not batcher.full:
            await commits.end_all()
        await asyncio.gather(*futures)
    assert max(commits.sizes[:-1]) <= 3000
    assert commits.batches[-1] == [50]
    assert len(commits.batches) < 15
