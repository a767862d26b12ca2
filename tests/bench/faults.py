"""What each ingress answers while RabbitMQ cannot take a postback: observed, not promised."""

import asyncio
import contextlib
import http.client
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Final

import aiormq

from deploy.local.ports import HOST
from shared.rabbitmq import topology
from tests.bench import traffic
from tests.bench.peers.common import QUEUES
from tests.bench.site import Site, say

TIME_LIMIT: Final = 6.0
"""Seconds to wait for an answer; ours has a limit of 5."""

RETURN_LIMIT: Final = 15.0
"""Seconds after the return of RabbitMQ in which a server must answer 200 again."""

NO_ANSWER: Final = 0
"""Stands for the status where there is none within the time limit."""

UNROUTABLE: Final = "no queue takes it"
SILENT: Final = "RabbitMQ does not answer"
DOWN: Final = "RabbitMQ is stopped"
RETURNED: Final = "RabbitMQ is back"
FAULTS: Final = (UNROUTABLE, SILENT, DOWN, RETURNED)

Statuses = Mapping[str, int]
"""The status of the answer, by server."""


def observe(site: Site, ports: Mapping[str, int]) -> dict[str, Statuses]:
    """Cause each fault in turn, and send one postback to each server. RabbitMQ runs at the end.

    Args:
        ports: of running servers, by name.

    Returns:
        The answers, by fault.
    """
    seen = {}
    asyncio.run(_delete_queues(site))
    seen[UNROUTABLE] = _answers(ports)
    site.rabbit.pause()
    try:
        seen[SILENT] = _answers(ports)
    finally:
        site.rabbit.resume()
    site.rabbit.stop()
    seen[DOWN] = _answers(ports)
    site.rabbit.start()
    until = time.monotonic() + RETURN_LIMIT
    seen[RETURNED] = _answers(ports)
    while time.monotonic() < until and set(seen[RETURNED].values()) != {HTTPStatus.OK}:
        time.sleep(1)
        seen[RETURNED] = _answers(ports)
    for fault, statuses in seen.items():
        say(f"ingress, {fault}: " + ", ".join(f"{name} {each}" for name, each in statuses.items()))
    return seen


def _answers(ports: Mapping[str, int]) -> Statuses:
    """The answer of each server to one postback, all at the same time."""
    with ThreadPoolExecutor(len(ports)) as threads:
        return dict(zip(ports, threads.map(_answer, ports.values()), strict=True))


def _answer(port: int) -> int:
    connection = http.client.HTTPConnection(HOST, port, timeout=TIME_LIMIT)
    with contextlib.closing(connection):
        try:
            connection.request("POST", traffic.PATH, traffic.body(0, "fault"))
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return NO_ANSWER


async def _delete_queues(site: Site) -> None:
    """Delete the queues of all servers; their exchanges stay."""
    async with site.session() as session:
        for queue in (topology.STATE_QUEUE, topology.ARCHIVE, *QUEUES):
            channel = await session.connection.channel()
            with contextlib.suppress(aiormq.exceptions.ChannelNotFoundEntity):
                await (await channel.get_underlay_channel()).queue_delete(queue)
                await channel.close()
