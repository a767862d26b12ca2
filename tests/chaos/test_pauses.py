"""Processes are paused (SIGSTOP, SIGCONT) under pipelined load, as a virtual machine may be.

Afterwards none is left that answers nothing, `/readyz` tells the truth within 2 s, all that was
answered 200 is in the state, and each process ends when it is told to.
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

ANSWER_LIMIT: Final = 5.0
"""Seconds within which every request is answered, by the law."""

TRUTH_LIMIT: Final = 2.0
"""Seconds after which `/readyz` has to tell the truth."""

SETTLE: Final = 60.0
"""Seconds in which something more has to arrive, until all is there."""

LOOK_AT: Final = 500
"""Postbacks that are looked for together."""

SLOW: Final = 0.05
"""Seconds that everything takes longer that goes to a slow server, either way."""

WHO: Final = ("ingest", "worker", "rabbitmq", "redis", "all")
SHORT: Final = [
    ("ingest", 6.0, "rabbitmq"),  # longer than an answer may take, with postbacks that wait
    ("rabbitmq", 3.0, "spool"),
    ("redis", 3.0, "redis"),
    ("all", 0.5, "rabbitmq"),
]
LONG: Final = [
    *(
        each
        for each in itertools.product(WHO, (0.5, 6.0), ("spool", "rabbitmq", "redis"))
        if each not in SHORT
    ),
    *itertools.product(WHO, (30.0,), ("rabbitmq",)),
]


@contextlib.asynccontextmanager
async def slow_site(site: Site, slow: str) -> AsyncIterator[tuple[Service, Service, Proxy]]:
    """An ingress, a worker, and the proxy before RabbitMQ; one of their servers is slow.

    A slow spool is of use only while it is used: RabbitMQ cannot be reached then.
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
            to_rabbitmq.slow(SLOW)
        elif slow == "redis":
            to_redis.slow(SLOW)
        else:
            to_rabbitmq.refuse()
        try:
            yield ingress, worker, to_rabbitmq
        finally:
            await site.stop()


@pytest.mark.parametrize(
    ("who", "seconds", "slow"),
    [*SHORT, *(pytest.param(*each, marks=pytest.mark.long) for each in LONG)],
)
async def test_a_pause(site: Site, who: str, seconds: float, slow: str) -> None:
    stop = asyncio.Event()
    async with slow_site(site, slow) as (ingress, worker, to_rabbitmq):
        load = Pipelining(site.settings.ingest_port, seconds + 2 * ANSWER_LIMIT)
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
                for child in children[who]:
                    child.pause()
                if who in {"rabbitmq", "redis", "worker"} and seconds > TRUTH_LIMIT:
                    await asyncio.sleep(TRUTH_LIMIT)
                    await tells_the_truth(ingress, load)
                    if who != "worker":
                        await worker_tells_the_truth(worker, able=False)
                    await asyncio.sleep(seconds - TRUTH_LIMIT)
                else:
                    await asyncio.sleep(seconds)
                for child in children[who]:
                    child.resume()
                await asyncio.sleep(TRUTH_LIMIT)
                await tells_the_truth(ingress, load)
                await worker_tells_the_truth(worker, able=slow != "spool")
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
            assert time.monotonic() - began < Child.stop_limit  # else it was killed
            assert "stopped" in service.log()
            assert "Traceback" not in service.log(), service.log()


async def tells_the_truth(ingress: Service, load: Pipelining) -> None:
    """`/readyz` is 200 exactly when a postback is answered 200, unless that changes just then."""
    async with asyncio.timeout(4 * ANSWER_LIMIT):
        while True:
            before, _ = await blocking(ingress.ask, "/readyz")
            assert before != 0  # it answers
            status = await load.post()
            after, text = await blocking(ingress.ask, "/readyz")
            if before == after:
                assert (status == 200) == (after == 200), (status, text)
                return


async def worker_tells_the_truth(worker: Service, *, able: bool) -> None:
    """Its `/readyz` is 200 exactly when it can process: both its servers answer it."""
    async with asyncio.timeout(4 * ANSWER_LIMIT):
        while True:
            status, _ = await blocking(worker.ask, "/readyz")
            assert status != 0  # it answers
            if (status == 200) == able:
                return
            await asyncio.sleep(0.1)


async def eventually_all_ready(*services: Service) -> bool:
    async with asyncio.timeout(SETTLE):
        for service in services:
            while not await blocking(service.ready):
                await asyncio.sleep(0.1)
    return True


async def missing(site: Site, durable: set[str]) -> set[str]:
    """What was answered 200 and does not come into the state: none of it came for `SETTLE`.

    Looks at some at a time: asking for all again and again would cost more than what is tested.
    """
    left = sorted(durable)
    deadline = time.monotonic() + SETTLE
    async with redis.asyncio.Redis.from_url(site.redis.url) as state:
        while left and time.monotonic() < deadline:
            some = left[:LOOK_AT]
            async with state.pipeline(transaction=False) as pipeline:
                for each in some:
                    pipeline.exists(f"mms:message:{{default/{each}}}")
                there = await pipeline.execute()
            if any(there):
                deadline = time.monotonic() + SETTLE
            else:
                await asyncio.sleep(0.1)
            known = {each for each, known in zip(some, there, strict=True) if known}
            left = [each for each in left if each not in known]
    return set(left)
