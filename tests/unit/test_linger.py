"""A small batch waits to fill only while waiting fills it. All times are virtual and exact."""

import asyncio
import functools
import itertools
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.batcher import MIN_PARALLEL_BATCH, Batcher, Result
from ingest.linger import USEFUL
from shared.errors import PostbacksError, SpoolUnavailableError
from shared.postback.envelope import Arrival
from tests.support.virtual_time import run

LIMIT: Final = 0.010
CONFIRM: Final = 0.003
TURNAROUND: Final = (0.0001, 0.0009)
"""Seconds from a response to the client's next request: at least, at most."""


class Commit(NamedTuple):
    """A commit of the arrivals with these numbers; `beside` another one that was in progress."""

    numbers: list[int]
    started: float
    beside: bool


class Ingress:
    """A batcher, and a record of what it did. Arrivals are numbered in order.

    Attributes:
        arrived: the time of each arrival.
        results: the results of each arrival.
        ends: when commits ended.
        stopped: when the batcher was stopped.
    """

    def __init__(
        self,
        linger: float,
        durations: Callable[[], float] = lambda: CONFIRM,
        largest: float = math.inf,
    ) -> None:
        self.batcher = Batcher(self._commit, linger=linger, largest=lambda: largest)
        self.arrived: list[float] = []
        self.commits: list[Commit] = []
        self.ends: list[float] = []
        self.results: list[list[Result]] = []
        self.in_progress = 0
        self.stopped = math.inf
        self._durations = durations

    def post(self, then: Callable[[], object] = lambda: None) -> None:
        number = len(self.arrived)
        self.arrived.append(_now())
        self.results.append([])

        def on_done(result: Result) -> None:
            self.results[number].append(result)
            then()

        self.batcher.enqueue(Arrival(number, "acme", "text/xml", b"{}"), math.inf, on_done)

    async def _commit(self, batch: Sequence[Arrival]) -> str:
        numbers = [arrival.received_at for arrival in batch]
        self.commits.append(Commit(numbers, _now(), beside=self.in_progress > 0))
        duration = self._durations()
        self.in_progress += 1
        try:
            await asyncio.sleep(abs(duration))
        finally:
            self.in_progress -= 1
            self.ends.append(_now())
        if duration < 0:
            raise SpoolUnavailableError("full")
        return "batch"

    def waits(self) -> list[float]:
        """Seconds from each arrival to its commit."""
        return [
            commit.started - self.arrived[number]
            for commit in self.commits
            for number in commit.numbers
        ]

    def sizes(self, since: float = 0.0) -> list[int]:
        return [len(commit.numbers) for commit in self.commits if commit.started >= since]


def _now() -> float:
    return asyncio.get_running_loop().time()


def simulate(ingress: Ingress, traffic: Callable[[], Awaitable[object]]) -> Ingress:
    """Run the batcher with this traffic, then stop it; return the record."""

    async def main() -> None:
        running = asyncio.create_task(ingress.batcher.run())
        await traffic()
        ingress.stopped = _now()
        ingress.batcher.stop()
        await running

    run(main())
    return ingress


async def at_random(ingress: Ingress, rate: float, seconds: float) -> None:
    """Clients that do not wait for one another."""
    source = random.Random(7)  # the same traffic each time
    end = _now() + seconds
    while _now() < end:
        await asyncio.sleep(source.expovariate(rate))
        ingress.post()


async def one_after_the_other(ingress: Ingress, clients: int, seconds: float) -> None:
    """Clients that each send a request after the response to the one before."""
    source = random.Random(7)
    loop = asyncio.get_running_loop()
    end = _now() + seconds

    def post() -> None:
        if _now() < end:
            ingress.post(post_later)

    def post_later() -> None:
        loop.call_later(source.uniform(*TURNAROUND), post)

    for _ in range(clients):
        post_later()
    await asyncio.sleep(seconds)


async def evenly(ingress: Ingress, rate: float, seconds: float) -> None:
    """Arrivals at equal intervals."""
    for _ in range(round(rate * seconds)):
        ingress.post()
        await asyncio.sleep(1 / rate)


def test_batches_fill_at_a_thousand_a_second() -> None:
    traffic = functools.partial(at_random, rate=1000, seconds=2)
    fast, slow = Ingress(0.0), Ingress(LIMIT)
    simulate(fast, lambda: traffic(fast))
    simulate(slow, lambda: traffic(slow))
    assert len(slow.commits) < len(fast.commits) / 2.5
    assert max(slow.waits()) <= LIMIT + CONFIRM


def test_no_arrival_waits_when_too_few_come_to_fill_a_batch() -> None:
    ingress = Ingress(LIMIT)
    simulate(ingress, lambda: at_random(ingress, rate=100, seconds=5))
    without = Ingress(0.0)
    simulate(without, lambda: at_random(without, rate=100, seconds=5))
    assert ingress.commits == without.commits


def test_the_first_arrivals_after_a_pause_do_not_wait() -> None:
    ingress = Ingress(LIMIT)

    async def traffic() -> None:
        await at_random(ingress, rate=2000, seconds=1)
        for _ in range(20):
            await asyncio.sleep(0.5)
            ingress.post()
            ingress.post()

    simulate(ingress, traffic)
    assert ingress.sizes()[-20:] == [2] * 20
    assert max(ingress.waits()[-40:]) == 0


@pytest.mark.parametrize("clients", [1, 2, USEFUL - 1])
def test_a_few_clients_that_wait_for_their_responses_are_never_delayed(clients: int) -> None:
    with_linger, without = Ingress(LIMIT), Ingress(0.0)
    for ingress in (with_linger, without):
        simulate(ingress, functools.partial(one_after_the_other, ingress, clients, 0.5))
    assert with_linger.commits == without.commits


@pytest.mark.parametrize("clients", [USEFUL, 8, 16, 31])
def test_clients_that_wait_for_their_responses_share_one_batch(clients: int) -> None:
    """The batch leaves with the last of them. Without a linger, two parts of them take turns."""
    with_linger, without = Ingress(LIMIT), Ingress(0.0)
    for ingress in (with_linger, without):
        simulate(ingress, functools.partial(one_after_the_other, ingress, clients, 0.5))
    assert set(with_linger.sizes(since=0.1)[:-1]) == {clients}
    for commit in with_linger.commits[20:-1]:
        assert commit.started == with_linger.arrived[commit.numbers[-1]]
    assert len(with_linger.arrived) > 1.4 * len(without.arrived)


@pytest.mark.parametrize("clients", [64, 256])
def test_many_clients_that_wait_for_their_responses_lose_nothing(clients: int) -> None:
    with_linger, without = Ingress(LIMIT), Ingress(0.0)
    for ingress in (with_linger, without):
        simulate(ingress, functools.partial(one_after_the_other, ingress, clients, 0.5))
    assert len(with_linger.arrived) >= len(without.arrived)


def test_clients_that_leave_delay_the_others_only_once() -> None:
    ingress = Ingress(LIMIT)

    async def traffic() -> None:
        leaving = asyncio.create_task(one_after_the_other(ingress, 8, 1))
        await one_after_the_other(ingress, 8, 2)
        await leaving

    simulate(ingress, traffic)
    late = [commit for commit in ingress.commits if 1.05 < commit.started < 1.95]
    assert {len(commit.numbers) for commit in late} == {8}
    assert {commit.started - ingress.arrived[commit.numbers[-1]] for commit in late} == {0.0}


def test_a_full_batch_does_not_wait() -> None:
    ingress = Ingress(1.0)  # no other reason than a full batch ends a wait soon

    simulate(ingress, lambda: evenly(ingress, rate=5000, seconds=1))
    settled = ingress.commits[20:-1]
    assert {len(commit.numbers) for commit in settled} == {MIN_PARALLEL_BATCH}
    for commit in settled:
        assert commit.started == ingress.arrived[commit.numbers[-1]]


def test_the_rest_of_a_batch_that_was_cut_does_not_start_a_small_commit_beside_it() -> None:
    ingress = Ingress(LIMIT, largest=300)  # bytes
    simulate(ingress, lambda: evenly(ingress, rate=1000, seconds=1))
    assert max(ingress.sizes()) == 4
    before_the_stop = [each for each in ingress.commits if each.started < ingress.stopped]
    assert not any(commit.beside for commit in before_the_stop)


def test_a_pause_of_the_arrivals_ends_the_wait() -> None:
    ingress = Ingress(1.0)

    async def traffic() -> None:
        await at_random(ingress, rate=2000, seconds=1)
        await asyncio.sleep(1)

    simulate(ingress, traffic)
    assert max(ingress.waits()) < 0.1


def test_stop_ends_the_wait_at_once() -> None:
    ingress = Ingress(1.0)

    async def traffic() -> None:
        await at_random(ingress, rate=2000, seconds=1)
        while not ingress.batcher.waiting or ingress.in_progress:
            ingress.post()
            await asyncio.sleep(0.0001)

    simulate(ingress, traffic)
    assert ingress.commits[-1].started == ingress.stopped
    assert ingress.arrived[ingress.commits[-1].numbers[0]] < ingress.stopped


Step = tuple[float, int]
"""Seconds until so many arrivals come."""

steps = st.lists(
    st.tuples(st.sampled_from([0.0, 0.0001, 0.001, 0.004, 0.02, 0.3]), st.integers(1, 40)),
    max_size=30,
)
durations = st.lists(st.sampled_from([0.0, 0.001, 0.003, 0.03, -0.001, -0.5]), min_size=1)
"""Seconds of commits, in turn; negative: the commit fails after so long."""


@given(steps, durations, st.sampled_from([0.0, 0.001, 0.01, 1.0]), st.sampled_from([0.0, 10.0]))
def test_each_arrival_gets_one_result_and_waits_no_longer_than_the_limit(
    schedule: list[Step], lengths: list[float], limit: float, rest: float
) -> None:
    ingress = Ingress(limit, functools.partial(next, itertools.cycle(lengths)))

    async def traffic() -> None:
        for pause, count in schedule:
            await asyncio.sleep(pause)
            for _ in range(count):
                ingress.post()
        await asyncio.sleep(rest)
        if rest:
            assert all(ingress.results)

    simulate(ingress, traffic)
    stopped = ingress.stopped
    assert [len(results) for results in ingress.results] == [1] * len(ingress.arrived)
    assert [number for commit in ingress.commits for number in commit.numbers] == list(
        range(len(ingress.arrived))
    )
    failed = Counter(isinstance(result, PostbacksError) for (result,) in ingress.results)
    assert not failed[True] or min(lengths) < 0
    for commit in ingress.commits:
        waited = commit.started - ingress.arrived[commit.numbers[0]]
        if commit.beside:
            assert len(commit.numbers) >= MIN_PARALLEL_BATCH or commit.started >= stopped
        else:  # it waited until another one ended, or no longer than the limit
            assert waited <= limit + 1e-9 or commit.started in (*ingress.ends, stopped)
