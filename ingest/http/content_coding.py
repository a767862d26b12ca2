"""Decompresses a body with a Content-Encoding, within limits of size and time.

aiohttp could do this while it reads, but it goes on decompressing a bomb after the response, while
it waits for the rest of the body. So aiohttp passes bodies on as they came, up to a limit, and they
are decompressed here, once, up to the limit.

A body of many empty members costs time instead of memory. So the number of members is limited, a
body is decompressed slice by slice within a limit of time, and a large body in a thread.
"""

import asyncio
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from shared.errors import BodyTooLargeError, BrokenCodingError, UnknownCodingError

MAX_MEMBERS: Final = 64
"""Compressed members that a body may have, one after the other."""

TIME_LIMIT: Final = 1.0
"""Seconds that decompressing a body may take."""

MAX_INLINE: Final = 4096
"""Bytes of the largest compressed body that is decompressed on the event loop."""

_SLICE: Final = 16 * 1024
"""Bytes that are decompressed between two looks at the clock."""

_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS
"""zlib's value for "a gzip or zlib header, whichever is there"."""

_thread: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="decompress")


async def decompress(body: bytes, coding: str, limit: int) -> bytes:
    """As `decompress_blocking`, without blocking the event loop."""
    if len(body) <= MAX_INLINE:
        return decompress_blocking(body, coding, limit)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_thread, decompress_blocking, body, coding, limit)


def decompress_blocking(body: bytes, coding: str, limit: int) -> bytes:
    """The body, decompressed.

    Args:
        coding: the Content-Encoding header; empty when there is none.
        limit: bytes that the decompressed body may have.

    Raises:
        BodyTooLargeError: it has more than `limit`; no more than that was decompressed.
        UnknownCodingError: the coding is not supported, or there are several.
        BrokenCodingError: the body is cut short, does not have this coding, has more than
            `MAX_MEMBERS` members, or takes longer than `TIME_LIMIT`.
    """
    name = coding.strip().lower()
    if name in {"", "identity"}:
        return body
    if name not in {"gzip", "x-gzip", "deflate"}:
        raise UnknownCodingError
    try:
        return _inflate(body, limit, raw=name == "deflate" and not _has_zlib_header(body))
    except zlib.error as error:
        raise BrokenCodingError from error


def _inflate(compressed: bytes, limit: int, *, raw: bool) -> bytes:
    """Decompress all members; gzip allows several, one after the other."""
    if not compressed:
        return b""
    body = bytearray()
    deadline = time.monotonic() + TIME_LIMIT
    start = 0
    for _ in range(MAX_MEMBERS):
        start = _inflate_member(compressed, start, body, limit, deadline, raw=raw)
        if start == len(compressed):
            return bytes(body)
    raise BrokenCodingError(f"the body has more than {MAX_MEMBERS} compressed members")


def _inflate_member(
    compressed: bytes, start: int, body: bytearray, limit: int, deadline: float, *, raw: bool
) -> int:
    """Append to `body` the member that begins at `start`; returns where the next one begins."""
    member = zlib.decompressobj(-zlib.MAX_WBITS if raw else _GZIP_OR_ZLIB)
    while not member.eof:
        if time.monotonic() > deadline:
            raise BrokenCodingError(f"decompressing the body takes longer than {TIME_LIMIT:g} s")
        part = compressed[start : start + _SLICE]
        if not part:
            raise BrokenCodingError
        body += member.decompress(part, limit + 1 - len(body))
        if len(body) > limit:
            raise BodyTooLargeError
        start += len(part) - len(member.unused_data) - len(member.unconsumed_tail)
    return start


def _has_zlib_header(body: bytes) -> bool:
    """Some clients send "deflate" without the zlib header that the standard wants."""
    return len(body) > 1 and body[0] & 15 == zlib.DEFLATED and int.from_bytes(body[:2]) % 31 == 0
