"""What child processes respond on their admin sockets, and their metrics merged."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import aiohttp
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

REQUEST_LIMIT: Final = 1.0
"""Seconds that a child may take to respond to its parent."""


class Response(NamedTuple):
    """The response of a child; when there was none, the text says why."""

    ok: bool
    text: str


async def request_all(sockets: Sequence[Path], path: str) -> list[Response]:
    """Request a path of every child; return the responses in the order of the sockets."""
    async with asyncio.TaskGroup() as tasks:
        requests = [tasks.create_task(_request(socket, path)) for socket in sockets]
    return [each.result() for each in requests]


async def _request(socket: Path, path: str) -> Response:
    connector = aiohttp.UnixConnector(str(socket))
    timeout = aiohttp.ClientTimeout(total=REQUEST_LIMIT)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.get(f"http://child{path}") as response,
        ):
            return Response(response.ok, await response.text())
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        text = f"process: not ready: no response ({type(error).__name__})"
        return Response(ok=False, text=text)


class MergedMetrics(Collector):
    """The metrics of all children; each sample gets the label `process`.

    Args:
        responses: of `/metrics`, by the number of the child.
    """

    def __init__(self, responses: Sequence[Response]) -> None:
        self._responses = responses

    def collect(self) -> Iterator[Metric]:
        merged: dict[str, Metric] = {}
        for number, response in enumerate(self._responses):
            if response.ok:
                for family in text_string_to_metric_families(response.text):
                    into = merged.setdefault(
                        family.name, Metric(family.name, family.documentation, family.type)
                    )
                    into.samples += [
                        sample._replace(labels={"process": str(number), **sample.labels})
                        for sample in family.samples
                    ]
        yield from merged.values()
