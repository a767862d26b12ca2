"""FastAPI and Celery's `delay`, one confirmed publish for each request.

`delay` blocks, so the handler is a plain `def`, which FastAPI runs in its pool of 40 threads, as
its documentation advises. An async dependency reads the body. `celery_app` has Celery's settings.
uvicorn with uvloop and httptools, one process, no access log.
"""

import argparse
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Request, Response

from tests.bench.peers.celery_app import take as task
from tests.bench.peers.common import HOST

app = FastAPI()


async def raw(request: Request) -> bytes:
    """The request's body."""
    return await request.body()


@app.post("/postbacks")
def take(body: Annotated[bytes, Depends(raw)]) -> Response:
    """Answer after the confirm."""
    task.delay(body.decode())
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
