"""The responses to requests: status, text and headers, as objects and as bytes."""

from typing import Final

from aiohttp import hdrs, web
from aiohttp.helpers import rfc822_formatted_time

from shared.errors import (
    BodyIncompleteError,
    BodyTooLargeError,
    BrokenCodingError,
    PostbacksError,
    UnknownCodingError,
)

SERVER: Final = "mms-ingest"
"""The `Server` header; aiohttp's own names the versions of Python and aiohttp."""

RETRY_AFTER: Final = "60"
"""Seconds that a refused client is asked to wait. The provider resends after 300 anyway."""

CORRELATION_ID: Final = "Correlation-Id"
"""The header with the batch id of a postback, which is in the logs and in events too."""


def durable(batch_id: str) -> web.Response:
    """200: the postback is durable in this batch."""
    return web.Response(headers={CORRELATION_ID: batch_id, hdrs.SERVER: SERVER})


def refusal(status: int, text: str, **headers: str) -> web.Response:
    """A refusal; its text is one line that says what is wrong."""
    return web.Response(status=status, text=f"{text}\n", headers={**headers, hdrs.SERVER: SERVER})


def response_for(error: PostbacksError) -> web.Response:
    """The response to a request that failed with this error."""
    status, headers = _RESPONSES.get(type(error), (503, {"Retry-After": RETRY_AFTER}))
    response = refusal(status, str(error), **headers)
    if isinstance(error, BodyTooLargeError):
        response.force_close()  # the rest of the body is not read
    return response


def encode(response: web.Response, *, close: bool) -> bytes:
    """The bytes of a response in HTTP/1.1, as aiohttp would write it.

    Args:
        close: the connection is closed after it.
    """
    body = response.body if isinstance(response.body, bytes) else b""
    headers = {
        **response.headers,
        hdrs.CONTENT_LENGTH: str(len(body)),
        hdrs.DATE: rfc822_formatted_time(),
    }
    if close:
        headers[hdrs.CONNECTION] = "close"
    lines = [f"HTTP/1.1 {response.status} {response.reason}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


_RESPONSES: Final[dict[type[PostbacksError], tuple[int, dict[str, str]]]] = {
    BodyTooLargeError: (413, {}),
    UnknownCodingError: (415, {"Accept-Encoding": "gzip, deflate"}),
    BodyIncompleteError: (400, {}),
    BrokenCodingError: (400, {}),
}
