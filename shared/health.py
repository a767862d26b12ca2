"""The admin port of every process: is it alive, is it ready, and its metrics.

`/healthz` answers 200 as long as the event loop turns. `/readyz` answers 200 when the process can
do its work and 503 with the reasons when it cannot.
"""

from collections.abc import Callable, Mapping

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, disable_created_metrics, generate_latest

from shared.errors import SettingsError

Readiness = Callable[[], Mapping[str, str | None]]
"""What the process needs, each with what is wrong with it or None."""


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
        lines = [f"{name}: {problem or 'ok'}\n" for name, problem in needs.items()]
        return web.Response(text="".join(lines), status=503 if any(needs.values()) else 200)

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


async def listen(runner: web.BaseRunner, host: str, port: int, variable: str) -> None:
    """Start listening.

    Args:
        variable: the setting that the port comes from, for the error.

    Raises:
        SettingsError: the address cannot be used.
    """
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=1024).start()
    except OSError as error:
        message = f"{host}:{port} cannot be listened on ({error.strerror}); change {variable}"
        raise SettingsError(message) from error
