"""Workers are killed: at random, at each step, all in turn."""

import asyncio
import random
from collections.abc import Callable

import pytest

from tests.support.site import Row, Site, blocking

Holds = Callable[[Row], None]


@pytest.mark.long
async def test_killed_at_random(site: Site, holds: Holds) -> None:
    await site.ingest()
    dice = random.Random()
    async with site.load() as load:
        with load.fault():
            for _ in range(8):
                worker = await site.worker()
                await asyncio.sleep(dice.uniform(0.1, 1.5))
                await blocking(worker.kill)
        await site.worker()
    holds(await load.verdict("worker killed (-9) 8 times at random"))


@pytest.mark.parametrize(
    "step",
    [
        "after-state",
        pytest.param("after-events", marks=pytest.mark.long),
        pytest.param("before-acknowledgement", marks=pytest.mark.long),
    ],
)
async def test_killed_at_a_step(site: Site, holds: Holds, step: str) -> None:
    """Other workers process its unacknowledged batches."""
    await site.ingest()
    async with site.load() as load:
        with load.fault():
            for window in (1, 5, 20):
                worker = await site.worker_that_dies(step, window)
                while worker.is_alive():
                    await asyncio.sleep(0.05)
        await site.worker()
    holds(await load.verdict(f"worker killed (-9) {step.replace('-', ' ')}, 3 times"))


@pytest.mark.long
async def test_three_workers_killed_in_turn(site: Site, holds: Holds) -> None:
    await site.ingest()
    workers = [await site.worker() for _ in range(3)]
    async with site.load() as load:
        with load.fault():
            for _ in range(3):
                for at in range(3):
                    await blocking(workers[at].kill)
                    await asyncio.sleep(0.7)
                    workers[at] = await site.worker()
    holds(await load.verdict("three workers killed (-9) in turn, 9 times"))
