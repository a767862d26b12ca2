"""The floor: aiohttp on the same event loop reads the body and answers 200. It keeps nothing.

It is the low-level server on which our ingress is built. `--application` uses aiohttp's usual
`web.Application` with its router instead. No access log, as the documentation on deployment and
performance advises.
"""

import argparse
import asyncio

import uvloop
from aiohttp import web

from tests.bench.peers.common import HOST


async def answer(request: web.BaseRequest) -> web.Response:
    """Read the body, answer 200."""
    await request.read()
    return web.Response()


async def main(port: int, *, application: bool) -> None:
    """Serve until killed."""
    runner: web.BaseRunner
    if application:
        app = web.Application()
        app.router.add_post("/postbacks", answer)
        runner = web.AppRunner(app, access_log=None)
    else:
        runner = web.ServerRunner(web.Server(answer, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, HOST, port, backlog=1024).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--application", action="store_true")
    arguments = parser.parse_args()
    uvloop.run(main(arguments.port, application=arguments.application))
