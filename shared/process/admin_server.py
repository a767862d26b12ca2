"""The routes of the admin port: whether the process is alive, whether it is ready, its metrics.

`/healthz` answers 200 as long as the event loop runs. `/readyz` answers 200 when the process can
do its work and 503 when it cannot. It has one line for each thing that the process needs: `ok`,
`degraded: reason` (the process works without it) or `not ready: reason`.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

from aiohttp import hdrs, web
from prometheus_client import CONTENT_TYPE_LATEST, disable_created_metrics, generate_latest

SHUTDOWN_LIMIT: Final = 1.0
"""Seconds that clients of the admin port have to read their responses when the process stops."""


class Degraded(str):
    """The problem of something that the process can work without."""

    __slots__ = ()


Readiness = Callable[[], Mapping[str, str | None]]
"""Returns the problem of each thing that the process needs. None: no problem. A `Degraded` text:
a problem, but the process is ready. Any other text: the process is not ready."""


class Ready(NamedTuple):
    """The response to `/readyz`."""

    ready: bool
    text: str


def runner(app: web.Application) -> web.AppRunner:
    """What serves the routes; `shared.process.listen` gives it a port."""
    return web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_LIMIT)


def application(readiness: Readiness, refresh: Callable[[], None] | None = None) -> web.Application:
    """The admin port's routes for a process that does the work itself.

    Args:
        readiness: called at every `/readyz`.
        refresh: updates the gauges; called before `/metrics` is read.
    """

    async def ready() -> Ready:
        return _ready(readiness())

    async def metrics() -> bytes:
        if refresh is not None:
            refresh()
        return generate_latest()

    return routes(ready, metrics)


def routes(
    ready: Callable[[], Awaitable[Ready]], metrics: Callable[[], Awaitable[bytes]]
) -> web.Application:
    """The admin port's routes.

    Args:
        ready: returns the response to `/readyz`.
        metrics: returns the response to `/metrics`, in Prometheus' text format.
    """

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        response = await ready()
        return web.Response(text=response.text, status=200 if response.ready else 503)

    async def read_metrics(_request: web.Request) -> web.Response:
        return web.Response(body=await metrics(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def set_server(_request: web.Request, response: web.StreamResponse) -> None:
        response.headers[hdrs.SERVER] = "mms"  # aiohttp's own value names its version and Python's

    disable_created_metrics()  # a second series for each counter, which nothing reads
    app = web.Application()
    app.on_response_prepare.append(set_server)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", read_metrics)
    return app


def _ready(needs: Mapping[str, str | None]) -> Ready:
    ready = all(problem is None or isinstance(problem, Degraded) for problem in needs.values())
    lines = [f"{name}: {_condition(problem)}\n" for name, problem in needs.items()]
    return Ready(ready, "".join(lines))


def _condition(problem: str | None) -> str:
    if problem is None:
        return "ok"
    return f"degraded: {problem}" if isinstance(problem, Degraded) else f"not ready: {problem}"
