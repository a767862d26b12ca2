"""The server of a page that draws deploy/grafana's dashboards without Grafana.

It serves the page (`deploy/dashboards`) and the current files of the dashboards, and forwards the
page's queries to one Prometheus, so the browser needs only one port. Every route only reads.

    python -m deploy.local.dashboards --port 9098 --prometheus http://127.0.0.1:9099
"""

import argparse
import http.client
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp import web

from deploy.local.child import Child
from deploy.local.ports import HOST, free_port

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "deploy" / "dashboards"
DASHBOARDS: Final = ROOT / "deploy" / "grafana"

QUERY_LIMIT: Final = 15.0
"""Seconds that Prometheus may take for one response."""

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
"""Headers of every response: the browser runs only the page's own files, whatever a label has."""

PROMETHEUS: Final = web.AppKey("prometheus", str)
SESSION: Final = web.AppKey("session", aiohttp.ClientSession)


def application(prometheus: str) -> web.Application:
    """The server's routes.

    Args:
        prometheus: URL of the Prometheus to query.
    """
    app = web.Application(middlewares=[_with_headers])
    app[PROMETHEUS] = prometheus
    app.cleanup_ctx.append(_session)
    app.add_routes(
        [
            web.get("/", _page),
            web.get("/dashboards", _names),
            web.get(r"/dashboards/{name:[\w-]+}", _dashboard),
            web.get("/api/v1/query", _query),
            web.get("/api/v1/query_range", _query),
            web.get(r"/api/v1/label/{name:\w+}/values", _query),
            web.static("/", PAGE),
        ]
    )
    return app


async def _page(_: web.Request) -> web.StreamResponse:
    return web.FileResponse(PAGE / "index.html")


async def _names(_: web.Request) -> web.Response:
    """The names of the dashboards; `pipeline` comes first, because it answers most questions."""
    names = sorted(path.stem for path in DASHBOARDS.glob("*.json"))
    return web.json_response(sorted(names, key=lambda name: name != "pipeline"))


async def _dashboard(request: web.Request) -> web.StreamResponse:
    path = DASHBOARDS / f"{request.match_info['name']}.json"
    if not path.is_file():
        raise web.HTTPNotFound
    return web.FileResponse(path)


async def _query(request: web.Request) -> web.Response:
    """Forward a query to Prometheus; when it is down, respond as Prometheus does to a bad query."""
    url = f"{request.app[PROMETHEUS]}{request.path_qs}"
    try:
        async with request.app[SESSION].get(url) as response:
            return web.Response(
                status=response.status,
                body=await response.read(),
                content_type=response.content_type,
            )
    except (aiohttp.ClientError, TimeoutError):
        error = f"No response from Prometheus at {request.app[PROMETHEUS]}"
        return web.json_response({"status": "error", "error": error}, status=502)


async def _session(app: web.Application) -> AsyncIterator[None]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(QUERY_LIMIT)) as session:
        app[SESSION] = session
        yield


@web.middleware
async def _with_headers(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    response = await handler(request)
    response.headers.update(HEADERS)
    return response


class Dashboards(Child):
    """The server as a process of its own.

    Args:
        prometheus: URL of the Prometheus to query; it may start later.
    """

    def __init__(self, prometheus: str, *, log_path: Path, port: int = 0) -> None:
        self.port = port or free_port()
        self.url = f"http://{HOST}:{self.port}"
        super().__init__(
            "dashboards",
            (
                *(sys.executable, "-m", "deploy.local.dashboards"),
                *("--port", str(self.port), "--prometheus", prometheus),
            ),
            log_path=log_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )

    def ready(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=2)
        try:
            connection.request("GET", "/dashboards")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def main() -> None:
    """Read the command line and serve until a signal."""
    parser = argparse.ArgumentParser(prog="deploy.local.dashboards", description=__doc__)
    parser.add_argument(
        "--port", type=int, required=True, help=f"port to listen on, on {HOST} only"
    )
    parser.add_argument("--prometheus", required=True, help="URL of the Prometheus to query")
    arguments = parser.parse_args()
    web.run_app(
        application(arguments.prometheus),
        host=HOST,
        port=arguments.port,
        print=None,
        access_log=None,
        shutdown_timeout=1.0,
    )


if __name__ == "__main__":
    main()
