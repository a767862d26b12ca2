"""The handler: body in, answer out. It does not look into the body.

A 200 is written only after the batch that holds the postback is durable. Anything else says what
is wrong in a line of text; the provider resends, people read it with curl.
"""

import asyncio
import logging
import time
from typing import Final

from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from ingest import metrics
from ingest.batcher import Batcher
from ingest.coding import decoded
from ingest.connections import Connections
from ingest.guard import PATH, Gate, Guard
from shared.envelope import Arrival
from shared.errors import (
    BodyIncompleteError,
    BodyTooLargeError,
    BrokenCodingError,
    PostbacksError,
    UnknownCodingError,
)
from shared.labels import UNKNOWN
from shared.settings import Settings
from shared.tracing import Tracing

ANSWER_LIMIT: Final = 4.5
"""Seconds from a request's headers to its answer, whatever hangs; the law says 5."""

RETRY_AFTER: Final = "60"
"""Seconds that a refused sender is asked to wait. The provider resends after 300 anyway."""

log: Final = logging.getLogger(__name__)


class Server:
    """Answers `POST /postbacks`, `POST /postbacks/{source}` and `POST /postbacks/{source}/{token}`.

    Args:
        tracing: None when nothing is traced.

    Raises:
        SettingsError: see `Guard`.
    """

    def __init__(
        self, settings: Settings, batcher: Batcher, tracing: Tracing | None = None
    ) -> None:
        self._batcher = batcher
        self._tracing = tracing
        self._guard = Guard(settings)
        self._max_body = int(settings.max_body)
        self._max_connections = settings.max_connections
        self.in_flight = 0
        self.stopping = False
        for source in settings.sources:
            metrics.ANSWERS["200", source].inc(0)  # from the start, so that its rate has a zero

    def aiohttp_server(self) -> Connections:
        """The low-level server of aiohttp: no routing or middleware between socket and handler."""
        return Connections(
            self.handle, max_body=self._max_body, max_connections=self._max_connections
        )

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answer one request within `ANSWER_LIMIT`."""
        started = time.perf_counter()
        gate, token = self._guard.gate(request.path)
        self.in_flight += 1
        try:
            if gate is None:
                response = _refusal(404, f"no such source; postbacks go to {PATH}/{{source}}")
            else:
                response = self._refused(request) or await self._answered(request, gate, token)
        finally:
            self.in_flight -= 1
        if self.stopping:
            response.force_close()
        metrics.ANSWERS[str(response.status), gate.source if gate else UNKNOWN].inc()
        metrics.ANSWER_TIME.observe(time.perf_counter() - started)
        return response

    def _refused(self, request: web.BaseRequest) -> web.Response | None:
        """What is wrong with the request whoever sends it, if anything is."""
        if request.method != "POST":
            return _refusal(405, "postbacks are POSTed", Allow="POST")
        if (request.content_length or 0) > self._max_body:
            return _answer_to(BodyTooLargeError())
        return None

    async def _answered(self, request: web.BaseRequest, gate: Gate, token: str) -> web.Response:
        deadline = asyncio.get_running_loop().time() + ANSWER_LIMIT
        try:
            if gate.open and request.content.is_eof():  # nothing to wait for, so nothing to limit
                body = await self._body(request)
            else:
                async with asyncio.timeout_at(deadline):
                    if refusal := await gate.refusal(request, token):
                        return _refusal(refusal.status, refusal.text, **refusal.headers)
                    body = await self._body(request)
            if not body:
                return _refusal(400, "the body is empty")
            content_type = _clean(request.headers.get("Content-Type", ""))
            arrival = Arrival(time.time_ns() // 1000, gate.source, content_type, body)
            await self._durable(arrival, deadline)
        except PostbacksError as error:
            return _answer_to(error)
        except TimeoutError:
            return _refusal(408, f"the body did not come within {ANSWER_LIMIT:g} s")
        return web.Response()

    async def _body(self, request: web.BaseRequest) -> bytes:
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise BodyTooLargeError from error
        except (ConnectionError, RequestPayloadError) as error:
            raise BodyIncompleteError from error
        coding = request.headers.get("Content-Encoding")
        return body if coding is None else decoded(body, coding, self._max_body)

    async def _durable(self, arrival: Arrival, deadline: float) -> None:
        if self._tracing is None:
            await self._batcher.submit(arrival, deadline)
            return
        with self._tracing.posted(arrival) as traced:
            await self._batcher.submit(traced, deadline)


def _answer_to(error: PostbacksError) -> web.Response:
    status, headers = _ANSWERS.get(type(error), (503, {"Retry-After": RETRY_AFTER}))
    response = _refusal(status, str(error), **headers)
    if isinstance(error, BodyTooLargeError):
        response.force_close()  # the rest of the body is not read
    return response


_ANSWERS: Final[dict[type[PostbacksError], tuple[int, dict[str, str]]]] = {
    BodyTooLargeError: (413, {}),
    UnknownCodingError: (415, {"Accept-Encoding": "gzip, deflate"}),
    BodyIncompleteError: (400, {}),
    BrokenCodingError: (400, {}),
}


def _clean(header: str) -> str:
    """A header as text that can be encoded: aiohttp leaves surrogates where it was not UTF-8."""
    return header[:128].encode("utf-8", "replace").decode()


def _refusal(status: int, text: str, **headers: str) -> web.Response:
    return web.Response(status=status, text=f"{text}\n", headers=headers)
