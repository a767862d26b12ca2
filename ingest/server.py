"""The handler: body in, answer out. It does not look into the body.

A 200 is written only after the batch that holds the postback is durable. Anything else says what
is wrong in a line of text; the provider resends, people read it with curl.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from ingest import metrics
from ingest.batcher import Batcher
from shared.envelope import Arrival
from shared.errors import PostbacksError
from shared.labels import UNKNOWN
from shared.settings import Settings
from shared.tracing import Tracing

ANSWER_LIMIT: Final = 4.5
"""Seconds from a request's headers to its answer, whatever hangs; the law says 5."""

RETRY_AFTER: Final = "60"
"""Seconds that a refused sender is asked to wait. The provider resends after 300 anyway."""

PATH: Final = "/postbacks"

log: Final = logging.getLogger(__name__)


class Server:
    """Answers `POST /postbacks` and `POST /postbacks/{source}`.

    Args:
        tracing: None when nothing is traced.
    """

    def __init__(
        self, settings: Settings, batcher: Batcher, tracing: Tracing | None = None
    ) -> None:
        self._batcher = batcher
        self._tracing = tracing
        self._max_body = int(settings.max_body)
        self._sources = {f"{PATH}/{source}": source for source in settings.sources}
        if "default" in settings.sources:
            self._sources[PATH] = "default"
        self.in_flight = 0
        self.stopping = False
        for source in self._sources.values():
            metrics.ANSWERS["200", source].inc(0)  # from the start, so that its rate has a zero

    def aiohttp_server(self) -> web.Server:
        """The low-level server of aiohttp: no routing or middleware between socket and handler."""
        return web.Server(
            self.handle,
            request_factory=_request_factory(self._max_body),
            access_log=None,
            keepalive_timeout=75.0,
        )

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answer one request within `ANSWER_LIMIT`."""
        started = time.perf_counter()
        source = self._sources.get(request.path)
        self.in_flight += 1
        try:
            response = self._refused(request, source) or await self._taken(request, source or "")
        finally:
            self.in_flight -= 1
        if self.stopping:
            response.force_close()
        metrics.ANSWERS[str(response.status), source or UNKNOWN].inc()
        metrics.ANSWER_TIME.observe(time.perf_counter() - started)
        return response

    def _refused(self, request: web.BaseRequest, source: str | None) -> web.Response | None:
        """What is wrong with the request before its body is read, if anything is."""
        if source is None:
            return _refusal(404, f"no such source; postbacks go to {PATH}/{{source}}")
        if request.method != "POST":
            return _refusal(405, "postbacks are POSTed", Allow="POST")
        if (request.content_length or 0) > self._max_body:
            return self._too_large()
        return None

    async def _taken(self, request: web.BaseRequest, source: str) -> web.Response:
        body = b""
        try:
            async with asyncio.timeout(ANSWER_LIMIT):
                body = await request.read()
                if not body:
                    return _refusal(400, "the body is empty")
                content_type = _clean(request.headers.get("Content-Type", ""))
                arrival = Arrival(time.time_ns() // 1000, source, content_type, body)
                await self._durable(arrival)
        except web.HTTPRequestEntityTooLarge:
            return self._too_large()
        except PostbacksError as error:
            return _refusal(503, str(error), **{"Retry-After": RETRY_AFTER})
        except TimeoutError:
            if not body:
                return _refusal(408, f"the body did not come within {ANSWER_LIMIT:g} s")
            return _refusal(503, "no durable answer in time", **{"Retry-After": RETRY_AFTER})
        return web.Response()

    async def _durable(self, arrival: Arrival) -> None:
        if self._tracing is None:
            await self._batcher.submit(arrival)
            return
        with self._tracing.posted(arrival) as traced:
            await self._batcher.submit(traced)

    def _too_large(self) -> web.Response:
        response = _refusal(413, f"the body is over {self._max_body} bytes (MMS_MAX_BODY)")
        response.force_close()  # the rest of the body is not read
        return response


def _clean(header: str) -> str:
    """A header as text that can be encoded: aiohttp leaves surrogates where it was not UTF-8."""
    return header[:128].encode("utf-8", "replace").decode()


def _refusal(status: int, text: str, **headers: str) -> web.Response:
    return web.Response(status=status, text=f"{text}\n", headers=headers)


def _request_factory(max_body: int) -> Callable[..., web.BaseRequest]:
    loop = asyncio.get_running_loop()

    def make(
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> web.BaseRequest:
        return web.BaseRequest(
            message,
            payload,
            protocol,
            writer,
            task,
            loop,
            client_max_size=max_body,
        )

    return make
