"""Reads the body of a request on the slow path: asks for it, limits it, decompresses it."""

from typing import Final

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.web_protocol import RequestPayloadError

from ingest.http.content_coding import decompress
from shared.errors import BodyIncompleteError, BodyTooLargeError

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
"""Asks a client for the body that it holds back."""


async def read_body(request: web.BaseRequest, limit: int) -> bytes:
    """Read and decompress the body; call it only for a request that is allowed.

    Args:
        limit: bytes that the decompressed body may have.

    Raises:
        BodyTooLargeError, BodyIncompleteError, UnknownCodingError, BrokenCodingError: as named.
    """
    try:
        if waits_for_continue(request):
            await request.writer.write(_CONTINUE)
            request.writer.output_size = 0  # else aiohttp counts it as part of the response
        body = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise BodyTooLargeError from error
    except (ConnectionError, RequestPayloadError) as error:
        raise BodyIncompleteError from error
    if hdrs.CONTENT_ENCODING not in request.headers:
        return body
    # Several headers of one name are one list (RFC 9110, 5.3).
    coding = ",".join(request.headers.getall(hdrs.CONTENT_ENCODING))
    return await decompress(body, coding, limit)


def is_complete(request: web.BaseRequest) -> bool:
    """Whether the body is here and needs no decompression: `read_body` does not wait then."""
    return request.content.is_eof() and hdrs.CONTENT_ENCODING not in request.headers


def waits_for_continue(request: web.BaseRequest) -> bool:
    """Whether the client holds its body back until 100 Continue (RFC 9110, 10.1.1)."""
    return (
        not request.content.is_eof()
        and request.version >= HttpVersion11
        and request.headers.get(hdrs.EXPECT, "").lower() == "100-continue"
    )
