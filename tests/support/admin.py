"""Runs `mms-admin` as a process, and batches for it to find."""

import asyncio
import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import redis.asyncio as redis
from pamqp.commands import Basic

from shared.postback import envelope
from shared.postback.dead_letter import Reason, dead_letter_of
from shared.postback.envelope import Arrival
from shared.rabbitmq import topology
from shared.rabbitmq.session import Session, open_session
from shared.settings.settings import Settings
from workers.consumer import Delivery
from workers.outbox import Outbox
from workers.pipeline import process_window
from workers.publish import publish_outbox
from workers.store import Store

COMMAND = "import sys; sys.argv[0] = 'mms-admin'; from workers.admin.main import main; main()"
AT = 1_795_486_200_000_000


class Ran(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


async def start(
    settings: Settings, *arguments: str, before: str = ""
) -> asyncio.subprocess.Process:
    """Start `mms-admin`; `before` is Python that it runs first."""
    variables = {
        f"MMS_{name.upper()}": ",".join(value) if isinstance(value, tuple) else str(value)
        for name in settings.__struct_fields__
        if name != "rules" and (value := getattr(settings, name)) is not None
    }
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", before + COMMAND, *arguments),
        env={**os.environ, **variables, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def admin(settings: Settings, *arguments: str, before: str = "") -> Ran:
    process = await start(settings, *arguments, before=before)
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return Ran(process.returncode or 0, out.decode(), err.decode())


def body(tracking_id: str, code: str, status: str, **more: str) -> bytes:
    fields = {"origin": "MMS_MT", "code": code, "status": status, "tracking-id": tracking_id}
    return json.dumps(fields | {"from": "28444", "to": "+15550001111"} | more).encode()


def arrival(content: bytes, at: int = 0, source: str = "default") -> Arrival:
    return Arrival(AT + at, source, "application/json", content)


SENT = arrival(body("T-1", "N101", "Message Sent", timestamp="2026-11-24T02:00:00Z"))
FAILED = arrival(body("T-1", "E102", "Failed", timestamp="2026-11-24T02:00:01Z"), at=1)

DELIVERED = arrival(
    body("T-1", "N102", "Delivered", **{"client-reference": "order-1", "operator-id": "31003"}),
    at=2,
)


@contextlib.asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Session]:
    session = await open_session(settings, name="test")
    try:
        yield session
    finally:
        await session.close()


async def publish(session: Session, batch: Sequence[Arrival]) -> None:
    await session.publish(
        envelope.encode(batch),
        exchange=topology.POSTBACKS,
        properties=Basic.Properties(content_type=envelope.CONTENT_TYPE),
        limit=10,
    )


async def process_queue(settings: Settings, session: Session) -> None:
    """Process batches as a worker does, until the input queue is empty."""
    store = Store(settings)
    try:
        while True:
            message = await session.channel.basic_get(topology.STATE_QUEUE)
            if not message.delivery_tag:
                return
            delivery = Delivery(0, envelope.CONTENT_TYPE, message.body, redelivered=False)
            await publish_outbox(session, await process_window(store, [delivery]))
            await session.channel.basic_ack(message.delivery_tag)
    finally:
        await store.aclose()


async def publish_and_process(settings: Settings, *batches: Sequence[Arrival]) -> None:
    """Publish batches and process them: archive, state, events, dead letters."""
    async with opened(settings) as session:
        for batch in batches:
            await publish(session, batch)
        await process_queue(settings, session)


async def input_bodies(session: Session) -> Counter[bytes]:
    """Take what is in the input queue; the postbacks in it, each in a batch of its own."""
    bodies: Counter[bytes] = Counter()
    while (message := await session.channel.basic_get(topology.STATE_QUEUE)).delivery_tag:
        (only,) = envelope.decode(message.body)
        bodies[only.body] += 1
        await session.channel.basic_ack(message.delivery_tag)
    return bodies


async def publish_dead_letters(
    session: Session, arrivals: Sequence[Arrival], reason: Reason
) -> None:
    dead_letters = [dead_letter_of(each, reason, "a test", "") for each in arrivals]
    await publish_outbox(session, Outbox([], dead_letters))


async def all_records(settings: Settings) -> dict[bytes, object]:
    """All records and indexes in Redis."""
    held: dict[bytes, object] = {}
    async with redis.Redis.from_url(settings.redis_url) as client:
        async for key in client.scan_iter(match="mms:*"):
            if (await client.type(key)) == b"hash":
                held[key] = await client.hgetall(key)
            elif (await client.type(key)) == b"string" and key.startswith(b"mms:ref:"):
                held[key] = await client.get(key)
            elif (await client.type(key)) == b"zset":
                held[key] = await client.zrange(key, 0, -1, withscores=True)
    return held
