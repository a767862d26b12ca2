"""Clients that pipeline: each writes many requests at once and then reads the responses in order.

A closed connection or a response other than 200 is not a failure, because the provider resends.
"""

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from typing import Final

HOST: Final = "127.0.0.1"
CLIENTS: Final = 24
DEPTH: Final = 20
"""The maximum of requests in progress of a client. The number is random, so that some wait for a
batch while others are in one."""

MAX_PAUSE: Final = 0.4
"""Seconds, at most, between a client's last response and its next requests."""


class Pipelining:
    """Load on one ingress.

    Args:
        patience: seconds without a response or the end of its connection after which a client
            counts as stuck.

    Attributes:
        durable: the tracking-ids of the postbacks that were answered 200.
        statuses: the statuses of all responses.
        stuck: how often a client waited longer than `patience`.
    """

    def __init__(self, port: int, patience: float) -> None:
        self._port = port
        self._patience = patience
        self._numbers = itertools.count()
        self.durable: set[str] = set()
        self.statuses: Counter[int] = Counter()
        self.stuck = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop` is set."""
        async with asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(self._client(stop))

    async def post(self) -> int:
        """Send one more postback on its own connection; the status, 0 without a response."""
        async with asyncio.timeout(self._patience):
            with contextlib.suppress(OSError, EOFError):
                reader, writer = await asyncio.open_connection(HOST, self._port)
                try:
                    return await self._exchange(reader, writer, [self._next()])
                finally:
                    writer.transport.abort()
        return 0

    def _next(self) -> str:
        return f"pause-{next(self._numbers)}"

    async def _client(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError, EOFError):
                reader, writer = await asyncio.open_connection(HOST, self._port)
                try:
                    while not stop.is_set():
                        ids = [self._next() for _ in range(random.randint(1, DEPTH))]
                        await self._exchange(reader, writer, ids)
                        await asyncio.sleep(random.uniform(0, MAX_PAUSE))
                except TimeoutError:
                    self.stuck += 1
                finally:
                    writer.transport.abort()
            await asyncio.sleep(MAX_PAUSE)

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ids: list[str]
    ) -> int:
        """Write all requests, read all responses; the status of the last one."""
        writer.write(b"".join(map(_request, ids)))
        status = 0
        for tracking_id in ids:
            async with asyncio.timeout(self._patience):
                head = await reader.readuntil(b"\r\n\r\n")
                status = int(head.split(b" ", 2)[1])
                length = next(
                    line.partition(b":")[2]
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                )
                await reader.readexactly(int(length))
            self.statuses[status] += 1
            if status == 200:
                self.durable.add(tracking_id)
        return status


def _request(tracking_id: str) -> bytes:
    body = (
        f'{{"origin":"MMS_MT","code":"N102","status":"Delivered","tracking-id":"{tracking_id}"}}'
    ).encode()
    head = f"POST /postbacks HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
