"""A full queue, and the time that workers need to drain it.

The workers run and have processed some postbacks. Then they are frozen, the queue is filled, and
they continue. So neither their start nor the filling is measured.
"""

import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec
from pamqp.commands import Basic

from deploy.local.child import Child
from shared.postback import envelope
from shared.rabbitmq import topology
from shared.rabbitmq.session import Session
from tests.bench import traffic
from tests.bench.measure import Meter, micro
from tests.bench.peers.common import FASTSTREAM_QUEUE, NODE_QUEUE
from tests.bench.site import Site
from tests.bench.wrk import LoadError

WARM_UP: Final = 2_000
"""Postbacks that workers process before they are measured."""

WARM_UP_NODE: Final = 5 * WARM_UP
"""The same for Node, which compiles what has run often."""

IN_FLIGHT: Final = 200
PROGRESS_LIMIT: Final = 20.0
"""Seconds without progress after which a measurement ends with an error."""

KEYS: Final = 2
"""Redis keys of a finished message: its record and its reference."""


class Drained(msgspec.Struct, frozen=True):
    """The result of draining a backlog.

    Attributes:
        cpu: CPU seconds by name: `worker`, `redis`, `rabbitmq`.
    """

    postbacks: int
    seconds: float
    cpu: dict[str, float]

    @property
    def rate(self) -> float:
        return self.postbacks / self.seconds

    def micro(self, name: str) -> float:
        """CPU microseconds for each postback."""
        return micro(self.cpu[name], self.postbacks)


Fill = Callable[[int, str], None]
"""Puts so many postbacks of a run into a queue."""


def fill_ours(site: Site, batch: int) -> Fill:
    """For our worker, in batches of so many postbacks."""

    def fill(count: int, run: str) -> None:
        arrivals = list(traffic.arrivals(count, run, time.time_ns() // 1000))
        batches = [
            envelope.encode(arrivals[start : start + batch]) for start in range(0, count, batch)
        ]
        asyncio.run(_publish(site, batches, topology.POSTBACKS, "", envelope.CONTENT_TYPE))

    return fill


def fill_faststream(site: Site) -> Fill:
    """For FastStream's worker, one message for each postback."""

    def fill(count: int, run: str) -> None:
        bodies = list(traffic.bodies(count, run))
        kind = "application/octet-stream"
        asyncio.run(_publish(site, bodies, "", FASTSTREAM_QUEUE, kind))

    return fill


def fill_node(site: Site) -> Fill:
    """For the Node worker, one message for each postback."""

    def fill(count: int, run: str) -> None:
        bodies = list(traffic.bodies(count, run))
        asyncio.run(_publish(site, bodies, "", NODE_QUEUE, "application/json"))

    return fill


def fill_celery(site: Site) -> Fill:
    """For Celery's worker, one task for each postback."""

    def fill(count: int, run: str) -> None:
        command, environment = site.peer_command("fill_celery")
        lines = b"".join(body + b"\n" for body in traffic.bodies(count, run))
        subprocess.run(command, env=environment, input=lines, check=True, timeout=300)

    return fill


def drain(site: Site, workers: Sequence[Child], fill: Fill, count: int, run: str) -> Drained:
    """Fill the queue while the workers are frozen, then measure how they drain it.

    Args:
        workers: running and idle.

    Raises:
        LoadError: they made no progress, or Redis has another number of keys than expected.
    """
    redis = site.redis_client
    before = redis.dbsize()
    wanted = before + count // 2 * KEYS
    for worker in workers:
        worker.pause()
    try:
        fill(count, run)
        sessions = {f"worker-{number}": each.pid or 0 for number, each in enumerate(workers)}
        meter = Meter(sessions | {"redis": site.redis.pid or 0, "rabbitmq": site.rabbit.pid or 0})
    finally:
        for worker in workers:
            worker.resume()
    began = progress_at = time.monotonic()
    done = before
    while done < wanted:
        time.sleep(0.01)
        now, done, last = time.monotonic(), redis.dbsize(), done
        if done > last:
            progress_at = now
        elif now - progress_at > PROGRESS_LIMIT:
            raise LoadError(f"no progress in the backlog: {done - before} keys of {count}")
    seconds = time.monotonic() - began
    spent = meter.spent()
    spent["worker"] = sum(spent.pop(name) for name in sessions)
    time.sleep(0.2)  # only the last acknowledgement is missing
    if redis.dbsize() != wanted:
        raise LoadError(f"{redis.dbsize() - before} keys, not {wanted - before}")
    return Drained(count, seconds, spent)


async def _publish(
    site: Site, bodies: Sequence[bytes], exchange: str, routing_key: str, content_type: str
) -> None:
    async with site.session() as session, asyncio.TaskGroup() as publishers:
        left = iter(bodies)
        for _ in range(IN_FLIGHT):
            publishers.create_task(_publish_all(session, left, exchange, routing_key, content_type))


async def _publish_all(
    session: Session, left: Iterator[bytes], exchange: str, routing_key: str, content_type: str
) -> None:
    for body in left:
        await session.publish(
            body,
            exchange=exchange,
            routing_key=routing_key,
            properties=Basic.Properties(content_type=content_type),
            limit=30,
        )
