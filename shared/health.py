"""The admin port of every process: is it alive, is it ready, and its metrics.

`/healthz` answers 200 as long as the event loop turns. `/readyz` answers 200 when the process can
do its work and 503 when it cannot. It has a line for each thing that the process needs: `ok`,
`degraded: why` (the work is done all the same) or `not ready: why`.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, disable_created_metrics, generate_latest

from shared.errors import SettingsError

BACKLOG: Final = 1024
"""Connections that the kernel holds until we take them."""

HANDSHAKE_LIMIT: Final = 5.0
"""Seconds that a TLS handshake may take."""


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
    app = web.Application()
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
    tls: ssl.SSLContext | None = None,
    shared: bool = False,
) -> None:
    """Start listening.

    Args:
        variable: the setting that the port comes from, for the error.
        tls: speak HTTPS.
        shared: with processes that do the same; the kernel spreads connections over them.

    Raises:
        SettingsError: the address cannot be used.
    """
    await runner.setup()
    try:
        site = _Site(
            runner, host, port, backlog=BACKLOG, ssl_context=tls, reuse_port=shared or None
        )
        await site.start()
    except OSError as error:
        raise _unusable(host, port, variable, error) from error


class _Site(web.TCPSite):
    """aiohttp's, which leaves a TLS handshake the event loop's 60 s."""

    async def start(self) -> None:
        await web.BaseSite.start(self)
        if (server := self._runner.server) is None:
            raise RuntimeError("the runner was not set up")
        self._server = await asyncio.get_running_loop().create_server(
            server,
            self._host,
            self._port,
            ssl=self._ssl_context,
            ssl_handshake_timeout=HANDSHAKE_LIMIT if self._ssl_context else None,
            backlog=self._backlog,
            reuse_address=self._reuse_address,
            reuse_port=self._reuse_port,
        )


def check_free(host: str, port: int, variable: str) -> None:
    """See that nobody else listens there: processes that share a port would share it with anyone.

    Raises:
        SettingsError: somebody does, or the address is not ours.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise _unusable(host, port, variable, error) from error


async def listen_to_parent(runner: web.BaseRunner, path: Path) -> None:
    """Start listening on a Unix socket, as one of several processes; see `fleet`."""
    await runner.setup()
    await web.UnixSite(runner, path).start()


def _unusable(host: str, port: int, variable: str, error: OSError) -> SettingsError:
    return SettingsError(
        f"{host}:{port} cannot be listened on ({error.strerror}); change {variable}"
    )
