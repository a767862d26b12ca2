"""The two request paths, from a request to its response. They do not look into the body.

The fast path takes most requests. It needs no task, but can wait for nothing except the batch. The
slow path, `handle`, takes the rest. Both ask the same `Policy.decide`.

A 200 is written only after the batch that holds the postback is durable. Every other response has
a line of text that says what is wrong, for people who read it with curl; the provider resends.
"""

import asyncio
import contextlib
import functools
import logging
import ssl
import time
from typing import Final

from aiohttp import hdrs, web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from ingest import metrics
from ingest.access_control.policy import (
    ALLOW,
    PATH,
    VERIFY_PASSWORD,
    AccessControl,
    Decision,
    Policy,
    Refuse,
)
from ingest.batcher import Batcher
from ingest.http import responses
from ingest.http.body import is_complete, read_body, waits_for_continue
from ingest.http.connection import Connection
from ingest.http.connections import Connections
from ingest.http.fast_path import FastConnection
from ingest.http.responses import refusal, response_for
from shared.errors import BodyTooLargeError, PostbacksError
from shared.postback.envelope import Arrival
from shared.process.metric_labels import UNKNOWN
from shared.process.tracing import Tracing
from shared.rate_limited_log import RateLimitedLog
from shared.settings.settings import Settings

RESPONSE_LIMIT: Final = 4.5
"""Seconds from a request's headers to its response, whatever is broken; 5 are guaranteed."""


class Server:
    """Serves `POST /postbacks`, `POST /postbacks/{source}` and `POST /postbacks/{source}/{token}`.

    Args:
        tracing: None when nothing is traced.

    Attributes:
        in_flight: requests that wait for their response.
        stopping: set it before the process stops; each response then closes its connection.

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
            for status in ("200", *map(str, _CLIENT_ERRORS)):
                metrics.RESPONSES[status, source].inc(0)  # rates need the zero at the start

    def aiohttp_server(self, tls: ssl.SSLContext | None = None) -> Connections:
        """The low-level server of aiohttp: no routing or middleware between socket and handler.

        Args:
            tls: serve HTTPS.
        """
        return Connections(
            self.handle,
            self.fast_path,
            max_body=self._max_body,
            max_connections=self._max_connections,
            tls=tls,
        )

    def fast_path(
        self, connection: FastConnection, message: RawRequestMessage, payload: StreamReader
    ) -> bool:
        """Submit a request that waits only for its batch; False leaves it to `handle`."""
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
            # Last, because it charges the rate limit.
            or not (policy.open or policy.decide(message.headers, connection.peer, token) is ALLOW)
        ):
            return False
        content_type = _clean(message.headers.get(hdrs.CONTENT_TYPE, ""))
        body = payload.read_nowait()
        arrival = Arrival(time.time_ns() // 1000, policy.source, content_type, body)
        deadline = connection.began + RESPONSE_LIMIT
        on_done = functools.partial(self._respond, connection, message, policy.source, started)
        self._batcher.enqueue(arrival, deadline, on_done)
        self.in_flight += 1
        return True

    def _respond(
        self,
        connection: FastConnection,
        message: RawRequestMessage,
        source: str,
        started: float,
        result: str | PostbacksError,
    ) -> None:
        """Respond to a request that `fast_path` took."""
        self.in_flight -= 1
        close = self.stopping or bool(message.should_close)
        if isinstance(result, str):
            status, response = "200", _durable(result, close=close)
        else:
            refused = response_for(result)
            _log_refusal(refused, source)
            status, response = str(refused.status), responses.encode(refused, close=close)
        connection.respond(response, close=close)
        metrics.RESPONSES[status, source].inc()
        metrics.RESPONSE_TIME.observe(time.perf_counter() - started)

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """The slow path: respond to one request within `RESPONSE_LIMIT`."""
        started = time.perf_counter()
        policy, token = self._access_control.policy(request.path)
        self.in_flight += 1
        try:
            if policy is None:
                response = refusal(404, f"no such source; postbacks go to {PATH}/{{source}}")
            else:
                response = self._invalid(request) or await self._accept(request, policy, token)
        finally:
            self.in_flight -= 1
        if self.stopping or waits_for_continue(request):
            response.force_close()  # the client may or may not send the body that it held back
        if policy is not None and request.content.exception() is None:  # else its body broke off
            _log_refusal(response, policy.source)
        metrics.RESPONSES[str(response.status), policy.source if policy else UNKNOWN].inc()
        metrics.RESPONSE_TIME.observe(time.perf_counter() - started)
        return response

    def _invalid(self, request: web.BaseRequest) -> web.Response | None:
        """The refusal of a request that no client may send; None when there is no such fault."""
        if request.method != "POST":
            return refusal(405, "send postbacks with POST", Allow="POST")
        if (request.content_length or 0) > self._max_body:
            return response_for(BodyTooLargeError())
        return None

    async def _accept(self, request: web.BaseRequest, policy: Policy, token: str) -> web.Response:
        """Check access, read the body, submit it, and wait until it is durable."""
        deadline = _began(request) + RESPONSE_LIMIT
        try:
            decision: Decision = ALLOW
            if not policy.open:
                decision = policy.decide(request.headers, request.remote or "", token)
            waits = decision is not ALLOW or not is_complete(request)
            async with asyncio.timeout_at(deadline) if waits else _NO_LIMIT:
                if decision is VERIFY_PASSWORD:
                    decision = await policy.verify_password(request)
                if isinstance(decision, Refuse):
                    return refusal(decision.status, decision.text, **decision.headers)
                body = await read_body(request, self._max_body)
            if not body:
                return refusal(400, "the body is empty")
            content_type = _clean(request.headers.get(hdrs.CONTENT_TYPE, ""))
            arrival = Arrival(time.time_ns() // 1000, policy.source, content_type, body)
            batch_id = await self._submit(arrival, deadline)
        except PostbacksError as error:
            return response_for(error)
        except TimeoutError:
            return refusal(408, f"the body did not come within {RESPONSE_LIMIT:g} s")
        return responses.durable(batch_id)

    async def _submit(self, arrival: Arrival, deadline: float) -> str:
        """The id of the batch in which the arrival is durable."""
        if self._tracing is None:
            return await self._batcher.submit(arrival, deadline)
        with self._tracing.posted(arrival) as traced:
            return await self._batcher.submit(traced, deadline)


_NO_LIMIT: Final = contextlib.nullcontext()
"""For a request that waits for nothing: cheaper than an `asyncio.timeout`."""

_CLIENT_ERRORS: Final = frozenset({400, 401, 403, 413, 429})
"""Statuses of refusals that the client or its source's rule causes."""


def _log_refusal(response: web.Response, source: str) -> None:
    """Log a refusal that the client causes. Its text never repeats what the client sent."""
    if response.status in _CLIENT_ERRORS:
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
    if isinstance(connection, Connection):
        return connection.began
    return asyncio.get_running_loop().time()


@functools.lru_cache(maxsize=256)
def _clean(header: str) -> str:
    """A header as text that can be encoded: aiohttp leaves surrogates where it was not UTF-8."""
    return header[:128].encode("utf-8", "replace").decode()


@functools.lru_cache(maxsize=8)
def _durable(batch_id: str, *, close: bool) -> bytes:
    """Cached, because all postbacks of a batch get the same response."""
    return responses.encode(responses.durable(batch_id), close=close)
