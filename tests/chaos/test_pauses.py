"""Processes are paused (SIGSTOP, SIGCONT) under pipelined load, like those of a virtual machine.

Afterwards each process answers, `/readyz` is right within 2 s, all postbacks that were answered 200
are in the state, and SIGTERM ends each process.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from typing import Final

import pytest
import redis.asyncio
from yarl import URL

from deploy.local.child import Child
from deploy.local.services import Service
from tests.support.pipelining import Pipelining
from tests.support.proxy import Proxy, proxied
from tests.support.site import Site, blocking

RESPONSE_LIMIT: Final = 5.0
"""Seconds within which every request must be answered."""

READINESS_LIMIT: Final = 2.0
"""Seconds after which `/readyz` must be right."""

PROGRESS_LIMIT: Final = 60.0
"""Seconds without a new postback in the state after which the rest counts as missing."""

CHUNK: Final = 500
"""Postbacks that are looked for at once."""

DELAY: Final = 0.05
"""Seconds of delay of a slow server, in each direction."""

PAUSED: Final = ("ingest", "worker", "rabbitmq", "redis", "all")
SHORT: Final = [
    ("ingest", 6.0, "rabbitmq"),  # longer than the response limit, with waiting postbacks
    ("rabbitmq", 3.0, "spool"),
    ("redis", 3.0, "redis"),
    ("all", 0.5, "rabbitmq"),
]
LONG: Final = [
    *(
        each
        for each in itertools.product(PAUSED, (0.5, 6.0), ("spool", "rabbitmq", "redis"))
        if each not in SHORT
    ),
    *itertools.product(PAUSED, (30.0,), ("rabbitmq",)),
]


@contextlib.asynccontextmanager
async def slow_site(site: Site, slow: str) -> AsyncIterator[tuple[Service, Service, Proxy]]:
    """An ingress, a worker, and the proxy before RabbitMQ; one of their servers is slow.

    With a slow spool RabbitMQ is unreachable, so that the spool is used.
    """
    async with (
        proxied(URL(site.rabbit.url).port or 0) as to_rabbitmq,
        proxied(URL(site.redis.url).port or 0) as to_redis,
    ):
        site.change(
            amqp_url=str(URL(site.rabbit.url).with_port(to_rabbitmq.port)),
            redis_url=str(URL(site.redis.url).with_port(to_redis.port)),
        )
        ingress = await (site.slow_ingest(0.1) if slow == "spool" else site.ingest())
        worker = await site.worker()
        if slow == "rabbitmq":
            to_rabbitmq.slow(DELAY)
        elif slow == "redis":
            to_redis.slow(DELAY)
        else:
            to_rabbitmq.refuse()
        try:
            yield ingress, worker, to_rabbitmq
        finally:
            await site.stop()


@pytest.mark.parametrize(
    ("paused", "seconds", "slow"),
    [*SHORT, *(pytest.param(*each, marks=pytest.mark.long) for each in LONG)],
)
async def test_a_pause(site: Site, paused: str, seconds: float, slow: str) -> None:
    stop = asyncio.Event()
    async with slow_site(site, slow) as (ingress, worker, to_rabbitmq):
        load = Pipelining(site.settings.ingest_port, seconds + 2 * RESPONSE_LIMIT)
        children: dict[str, Sequence[Child]] = {
            "ingest": [ingress],
            "worker": [worker],
            "rabbitmq": [site.rabbit],
            "redis": [site.redis],
            "all": [ingress, worker, site.rabbit, site.redis],
        }
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run(stop))
            try:
                await asyncio.sleep(1.5)
                for child in children[paused]:
                    child.pause()
                if paused in {"rabbitmq", "redis", "worker"} and seconds > READINESS_LIMIT:
                    await asyncio.sleep(READINESS_LIMIT)
                    await ingress_readiness_is_right(ingress, load)
                    if paused != "worker":
                        await worker_readiness_is(worker, ready=False)
                    await asyncio.sleep(seconds - READINESS_LIMIT)
                else:
                    await asyncio.sleep(seconds)
                for child in children[paused]:
                    child.resume()
                await asyncio.sleep(READINESS_LIMIT)
                await ingress_readiness_is_right(ingress, load)
                await worker_readiness_is(worker, ready=slow != "spool")
                to_rabbitmq.heal()
                await asyncio.sleep(1.0)
            finally:
                for child in children["all"]:
                    child.resume()
                stop.set()
        assert load.stuck == 0
        assert load.durable
        assert await eventually_all_ready(ingress, worker)
        assert await load.post() == 200
        assert await missing(site, load.durable) == set()
        for service in (ingress, worker):
            began = time.monotonic()
            await blocking(service.stop)
            assert time.monotonic() - began < Child.stop_limit  # it was not killed
            assert "stopped" in service.log()
            assert "Traceback" not in service.log(), service.log()


async def ingress_readiness_is_right(ingress: Service, load: Pipelining) -> None:
    """`/readyz` is 200 if and only if a postback is answered 200; try again if it just changes."""
    async with asyncio.timeout(4 * RESPONSE_LIMIT):
        while True:
            before, _ = await blocking(ingress.ask, "/readyz")
            assert before != 0  # it answers
            status = await load.post()
            after, text = await blocking(ingress.ask, "/readyz")
            if before == after:
                assert (status == 200) == (after == 200), (status, text)
                return


async def worker_readiness_is(worker: Service, *, ready: bool) -> None:
    """`/readyz` of the worker becomes 200 if both its servers answer, else not."""
    async with asyncio.timeout(4 * RESPONSE_LIMIT):
        while True:
            status, _ = await blocking(worker.ask, "/readyz")
            assert status != 0  # it answers
            if (status == 200) == ready:
                return
            await asyncio.sleep(0.1)


async def eventually_all_ready(*services: Service) -> bool:
    async with asyncio.timeout(PROGRESS_LIMIT):
        for service in services:
            while not await blocking(service.ready):
                await asyncio.sleep(0.1)
    return True


async def missing(site: Site, durable: set[str]) -> set[str]:
    """The postbacks that were answered 200 and are not in the state after `PROGRESS_LIMIT`.

    They are looked for in chunks, so that looking costs less than the processes under test.
    """
    left = sorted(durable)
    deadline = time.monotonic() + PROGRESS_LIMIT
    async with redis.asyncio.Redis.from_url(site.redis.url) as state:
        while left and time.monotonic() < deadline:
            some = left[:CHUNK]
            async with state.pipeline(transaction=False) as pipeline:
                for each in some:
                    pipeline.exists(f"mms:message:{{default/{each}}}")
                there = await pipeline.execute()
            if any(there):
                deadline = time.monotonic() + PROGRESS_LIMIT
            else:
                await asyncio.sleep(0.1)
            known = {each for each, known in zip(some, there, strict=True) if known}
            left = [each for each in left if each not in known]
    return set(left)
