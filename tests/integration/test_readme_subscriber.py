"""The subscriber of the README, unchanged, with a RabbitMQ that is restarted."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import aio_pika

from deploy.local.servers import RabbitMQ
from tests.support.processes import until

README = (Path(__file__).parents[2] / "README.md").read_text()


async def test_it_connects_again_and_keeps_the_highest_sequence(
    fresh_rabbit: Callable[..., RabbitMQ], tmp_path: Path
) -> None:
    server = fresh_rabbit()
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 1
    printed = tmp_path / "printed"
    await _publish(server, ())
    with printed.open("w") as output:
        subscriber = await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", "-c", blocks[0]),
            env=os.environ | {"MMS_AMQP_URL": server.url},
            stdout=output,
            stderr=subprocess.DEVNULL,
        )
    try:
        assert until(lambda: "billing" in server.ctl("list_bindings", "destination_name"))
        await _publish(server, (_event("a", "expired", "2"), _event("a", "failed", "1")))
        await _publish(server, (_event("b", "failed", None), _event("b", "delivered", "3")))
        server.restart()
        await _publish(server, (_event("a", "failed", "1"), _event("a", "delivered", "3")))
        assert until(lambda: "delivered a" in printed.read_text()), printed.read_text()
    finally:
        subscriber.kill()
        await subscriber.wait()
    lines = [line for line in printed.read_text().splitlines() if line.startswith("mms.")]
    assert lines == [
        "mms.message.expired a",
        "mms.message.failed b",
        "mms.message.delivered b",
        "mms.message.delivered a",
    ]


def _event(subject: str, outcome: str, sequence: str | None) -> dict[str, str]:
    event = {"type": f"mms.message.{outcome}", "source": "/mms-postbacks/x", "subject": subject}
    return event if sequence is None else event | {"sequence": sequence}


async def _publish(server: RabbitMQ, events: tuple[dict[str, str], ...]) -> None:
    """Declare the exchange, as a worker does, and publish to it."""
    async with await aio_pika.connect(server.url) as connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange("mms.events", "topic", durable=True)
        for event in events:
            message = aio_pika.Message(
                json.dumps(event).encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT
            )
            await _until_accepted(exchange, message)


async def _until_accepted(
    exchange: aio_pika.abc.AbstractExchange, message: aio_pika.Message
) -> None:
    """Publish again until it is accepted: a quorum queue without a leader rejects."""
    async with asyncio.timeout(30):
        while True:
            try:
                await exchange.publish(message, "message.any.31003", mandatory=False)
            except aio_pika.exceptions.DeliveryError:
                await asyncio.sleep(0.1)
            else:
                return
