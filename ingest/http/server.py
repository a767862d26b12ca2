"""The handler: body in, answer out. It does not look into the body.

A 200 is written only after the batch that holds the postback is durable. Anything else says what
is wrong in a line of text; the provider resends, people read it with curl.
"""

import asyncio
import functools
import logging
import ssl
import time
from typing import Final

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestPayloadError

from ingest import metrics
from ingest.access_control.policy import PATH, AccessControl, Policy
from ingest.batcher import Batcher
from ingest.http import responses
from ingest.http.connection import PlainConnection
from ingest.http.connections import Connections
from ingest.http.content_coding import unpacked
from ingest.http.fast_path import Connection
from ingest.http.responses import refusal, response_for
from shared.errors import BodyIncompleteError, BodyTooLargeError, PostbacksError
from shared.postback.envelope import Arrival
from shared.process.metric_labels import UNKNOWN
from shared.process.tracing import Tracing
from shared.rate_limited_log import RateLimitedLog
from shared.settings.settings import Settings

ANSWER_LIMIT: Final = 4.5
"""Seconds from a request's headers to its answer, whatever hangs; the law says 5."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
"""Asks a client for the body that it holds back; sent only when the body is wanted."""


class Server:
    """Answers `POST /postbacks`, `POST /postbacks/{source}` and `POST /postbacks/{source}/{token}`.

    Args:
        tracing: None when nothing is traced.

    Raises:
        SettingsError: see `AccessControl`.
    """

    def __init__(
        self, settings: Settings, batcher: Batcher, tracing: Tracing | None = None
    ) -> None:
        self._batcher = batcher
        self._tracing = tracing
        self._access_control = AccessControl(settings)
        self._max_body = int(settings.max_body)
        self._max_connections = settings.max_connections
        self.in_flight = 0
        self.stopping = False
        for source in settings.sources:
            for status in ("200", *map(str, _SENDERS_OWN)):
                metrics.RESPONSES[status, source].inc(
                    0
                )  # from the start, so that its rate has a zero

    def aiohttp_server(self, tls: ssl.SSLContext | None = None) -> Connections:
        """The low-level server of aiohttp: no routing or middleware between socket and handler.

        Args:
            tls: speak HTTPS.
        """
        return Connections(
            self.handle,
            self.fast_path,
            max_body=self._max_body,
            max_connections=self._max_connections,
            tls=tls,
        )

    def fast_path(
        self, connection: Connection, message: RawRequestMessage, payload: StreamReader
    ) -> bool:
        """Submit a request that needs nothing but its batch; False leaves it to `handle`."""
        started = time.perf_counter()
        policy, token = self._access_control.policy(message.path)
        if (
            policy is None
            or message.method != "POST"
            or not 0 < payload.total_bytes <= self._max_body
            or hdrs.CONTENT_ENCODING in message.headers
            or self._tracing is not None
            or self._batcher.full
            or self.stopping
            or not (policy.open or policy.allows(message.headers, connection.peer, token))
        ):
            return False
        content_type = _clean(message.headers.get(hdrs.CONTENT_TYPE, ""))
        body = payload.read_nowait()
        arrival = Arrival(time.time_ns() // 1000, policy.source, content_type, body)
        deadline = connection.began + ANSWER_LIMIT
        on_done = functools.partial(self._respond, connection, message, policy.source, started)
        self._batcher.enqueue(arrival, deadline, on_done)
        self.in_flight += 1
        return True

    def _respond(
        self,
        connection: Connection,
        message: RawRequestMessage,
        source: str,
        started: float,
        result: str | PostbacksError,
    ) -> None:
        """Answer what `express` took."""
        self.in_flight -= 1
        close = self.stopping or bool(message.should_close)
        if isinstance(result, str):
            status, response = "200", _durable(result, close=close)
        else:
            refused = response_for(result)
            _log_refused(refused, source)
            status, response = str(refused.status), responses.rendered(refused, close=close)
        connection.answer(response, close=close)
        metrics.RESPONSES[status, source].inc()
        metrics.RESPONSE_TIME.observe(time.perf_counter() - started)

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answer one request within `ANSWER_LIMIT`."""
        started = time.perf_counter()
        policy, token = self._access_control.policy(request.path)
        self.in_flight += 1
        try:
            if policy is None:
                response = refusal(404, f"no such source; postbacks go to {PATH}/{{source}}")
            else:
                response = self._refused(request) or await self._answered(request, policy, token)
        finally:
            self.in_flight -= 1
        if self.stopping or _waits_for_continue(request):
            response.force_close()  # the client may send the body that it held back, or not
        if policy is not None and request.content.exception() is None:  # else its body broke off
            _log_refused(response, policy.source)
        metrics.RESPONSES[str(response.status), policy.source if policy else UNKNOWN].inc()
        metrics.RESPONSE_TIME.observe(time.perf_counter() - started)
        return response

    def _refused(self, request: web.BaseRequest) -> web.Response | None:
        """What is wrong with the request whoever sends it, if anything is."""
        if request.method != "POST":
            return refusal(405, "postbacks are POSTed", Allow="POST")
        if (request.content_length or 0) > self._max_body:
            return response_for(BodyTooLargeError())
        return None

    async def _answered(self, request: web.BaseRequest, policy: Policy, token: str) -> web.Response:
        deadline = _began(request) + ANSWER_LIMIT
        try:
            packed = hdrs.CONTENT_ENCODING in request.headers
            if policy.open and request.content.is_eof() and not packed:  # nothing to wait for
                body = await self._body(request)
            else:
                async with asyncio.timeout_at(deadline):
                    if refused := await policy.refusal(request, token):
                        return refusal(refused.status, refused.text, **refused.headers)
                    body = await self._body(request)
            if not body:
                return refusal(400, "the body is empty")
            content_type = _clean(request.headers.get(hdrs.CONTENT_TYPE, ""))
            arrival = Arrival(time.time_ns() // 1000, policy.source, content_type, body)
            batch = await self._durable(arrival, deadline)
        except PostbacksError as error:
            return response_for(error)
        except TimeoutError:
            return refusal(408, f"the body did not come within {ANSWER_LIMIT:g} s")
        return responses.durable(batch)

    async def _body(self, request: web.BaseRequest) -> bytes:
        try:
            if _waits_for_continue(request):
                await request.writer.write(_CONTINUE)
                request.writer.output_size = 0  # else aiohttp takes it for the answer's beginning
            body = await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise BodyTooLargeError from error
        except (ConnectionError, RequestPayloadError) as error:
            raise BodyIncompleteError from error
        if hdrs.CONTENT_ENCODING not in request.headers:
            return body
        # Several headers of one name are one list (RFC 9110, 5.3).
        coding = ",".join(request.headers.getall(hdrs.CONTENT_ENCODING))
        return await unpacked(body, coding, self._max_body)

    async def _durable(self, arrival: Arrival, deadline: float) -> str:
        if self._tracing is None:
            return await self._batcher.submit(arrival, deadline)
        with self._tracing.posted(arrival) as traced:
            return await self._batcher.submit(traced, deadline)


_SENDERS_OWN: Final = frozenset({400, 401, 403, 413, 429})
"""Statuses of refusals that the sender or its source's rule causes."""


def _log_refused(response: web.Response, source: str) -> None:
    """Log a refusal that is no fault of ours. Its text is always one of ours."""
    if response.status in _SENDERS_OWN:
        text = (response.text or "").strip()
        _limited_log.warning(
            f"{source} {response.status} {text}",
            "postbacks of source %s are refused with %d: %s",
            *(source, response.status, text),
        )


_limited_log: Final = RateLimitedLog(logging.getLogger("mms-ingest"))


def _began(request: web.BaseRequest) -> float:
    """When the headers of a request were complete, in seconds on the event loop's clock."""
    connection = request.protocol
    if isinstance(connection, PlainConnection):
        return connection.began
    return asyncio.get_running_loop().time()


def _waits_for_continue(request: web.BaseRequest) -> bool:
    """Whether the client holds its body back until it is asked for it (RFC 9110, 10.1.1)."""
    return (
        not request.content.is_eof()
        and request.version >= HttpVersion11
        and request.headers.get(hdrs.EXPECT, "").lower() == "100-continue"
    )


@functools.lru_cache(maxsize=256)
def _clean(header: str) -> str:
    """A header as text that can be encoded: aiohttp leaves surrogates where it was not UTF-8."""
    return header[:128].encode("utf-8", "replace").decode()


@functools.lru_cache(maxsize=8)
def _durable(batch: str, *, close: bool) -> bytes:
    """All postbacks of a batch are answered alike."""
    return responses.rendered(responses.durable(batch), close=close)
