"""The admin port of every process: is it alive, is it ready, and its metrics.

`/healthz` answers 200 as long as the event loop turns. `/readyz` answers 200 when the process can
do its work and 503 when it cannot. It has a line for each thing that the process needs: `ok`,
`degraded: why` (the work is done all the same) or `not ready: why`.
"""

import errno
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from aiohttp import hdrs, web
from prometheus_client import CONTENT_TYPE_LATEST, disable_created_metrics, generate_latest

from shared.errors import SettingsError

BACKLOG: Final = 1024
"""Connections that the kernel holds until we take them."""


class Degraded(str):
    """What is wrong with something that the process can do its work without."""

    __slots__ = ()


Readiness = Callable[[], Mapping[str, str | None]]
"""What the process needs: None if it is well, a `Degraded` text if it is not but the process is
ready all the same, any other text if the process is not ready because of it."""


def application(readiness: Readiness, refresh: Callable[[], None] | None = None) -> web.Application:
    """The admin port's handlers.

    Args:
        readiness: asked at every `/readyz`.
        refresh: brings gauges up to date before `/metrics` is read.
    """

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        needs = readiness()
        lines = [f"{name}: {_condition(problem)}\n" for name, problem in needs.items()]
        ready = all(problem is None or isinstance(problem, Degraded) for problem in needs.values())
        return web.Response(text="".join(lines), status=200 if ready else 503)

    async def metrics(_request: web.Request) -> web.Response:
        if refresh is not None:
            refresh()
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    disable_created_metrics()  # a second series beside each counter, which nothing reads

    async def name(_request: web.Request, response: web.StreamResponse) -> None:
        response.headers[hdrs.SERVER] = "mms"  # aiohttp's own names its version and Python's

    app = web.Application()
    app.on_response_prepare.append(name)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    return app


def _condition(problem: str | None) -> str:
    if problem is None:
        return "ok"
    return f"degraded: {problem}" if isinstance(problem, Degraded) else f"not ready: {problem}"


async def listen(
    runner: web.BaseRunner,
    host: str,
    port: int,
    variable: str,
    *,
    shared: bool = False,
) -> None:
    """Start listening.

    Args:
        variable: the setting that the port comes from, for the error.
        shared: with processes that do the same; the kernel spreads connections over them.

    Raises:
        SettingsError: the address cannot be used.
    """
    await runner.setup()
    every = None if host == "::" else host  # asyncio's :: is IPv6 alone, its None both families
    try:
        site = web.TCPSite(runner, every, port, backlog=BACKLOG, reuse_port=shared or None)
        await site.start()
    except OSError as error:
        raise _unusable(host, port, variable, error) from error


def check_free(host: str, port: int, variable: str) -> None:
    """See that nobody else listens there: processes that share a port would share it with anyone.

    Raises:
        SettingsError: somebody does, or the address is not ours.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise _unusable(host, port, variable, error) from error


async def listen_to_parent(runner: web.BaseRunner, path: Path) -> None:
    """Start listening on a Unix socket, as one of several processes; see `fleet`."""
    await runner.setup()
    await web.UnixSite(runner, path).start()


def _unusable(host: str, port: int, variable: str, error: OSError) -> SettingsError:
    # asyncio of Python 3.13 says without a number that none of the host's addresses is ours.
    if isinstance(error, socket.gaierror) or error.errno in {errno.EADDRNOTAVAIL, None}:
        variable = variable.replace("_PORT", "_HOST")  # the address is wrong, not the port
    reason = error.strerror or os.strerror(errno.EADDRNOTAVAIL)
    return SettingsError(f"{host}:{port} cannot be listened on ({reason}); change {variable}")
