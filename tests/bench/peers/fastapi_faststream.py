"""FastAPI and FastStream: one publish and one confirm for each request.

As FastStream's documentation shows for FastAPI: the broker starts in the application's lifespan,
and the handler publishes with it. Publisher confirms and `mandatory` are FastStream's defaults. The
peer also sets `persist`, a quorum queue, and an error for unroutable messages. uvicorn with uvloop
and httptools, one process, no access log.
"""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, Request, Response
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

from tests.bench.peers.common import AMQP_URL, FASTSTREAM_QUEUE, HOST

broker = RabbitBroker(AMQP_URL, default_channel=Channel(on_return_raises=True), logger=None)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Start the broker before the first request."""
    await broker.start()
    await broker.declare_queue(RabbitQueue(FASTSTREAM_QUEUE, queue_type=QueueType.QUORUM))
    yield
    await broker.stop()


app = FastAPI(lifespan=lifespan)


@app.post("/postbacks")
async def take(request: Request) -> Response:
    """Answer after the confirm."""
    body = await request.body()
    await broker.publish(body, FASTSTREAM_QUEUE, persist=True, timeout=5)
    return Response()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvicorn.run(
        app,
        host=HOST,
        port=parser.parse_args().port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        backlog=1024,
    )
