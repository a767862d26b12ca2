"""Plain aiohttp and aio-pika: one publish and one confirm for each request.

As aio-pika's documentation shows: one robust connection, one channel with publisher confirms (its
default) opened when the application starts, persistent messages, `mandatory`, to a durable quorum
queue. Requests are concurrent, so the channel waits for several confirms at once. uvloop and no
access log, as aiohttp's documentation on deployment advises.
"""

import argparse
import asyncio

import aio_pika
import uvloop
from aiohttp import web

from tests.bench.peers.common import AIOHTTP_QUEUE, AMQP_URL, HOST, QUORUM


async def main(port: int) -> None:
    """Serve until killed."""
    connection = await aio_pika.connect_robust(AMQP_URL)
    channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
    await channel.declare_queue(AIOHTTP_QUEUE, durable=True, arguments=dict(QUORUM))
    exchange = channel.default_exchange

    async def take(request: web.Request) -> web.Response:
        message = aio_pika.Message(
            await request.read(),
            content_type=request.content_type,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await exchange.publish(message, AIOHTTP_QUEUE, mandatory=True, timeout=5)
        return web.Response()

    app = web.Application()
    app.router.add_post("/postbacks", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, port, backlog=1024).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(main(parser.parse_args().port))
