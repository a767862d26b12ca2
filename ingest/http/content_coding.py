"""A body without its Content-Encoding, and never more of it than is wanted.

aiohttp would do this while it reads, but goes on unpacking a bomb after the answer, for as long as
it waits for the rest of the body. So it hands us bodies as they came, bounded, and they are
unpacked here, once, up to the limit.

Many empty members are a bomb too, of time: there may be a few, a body is unpacked slice by slice
within a budget of time, and a large one is unpacked in a thread.
"""

import asyncio
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from shared.errors import BodyTooLargeError, BrokenCodingError, UnknownCodingError

_AUTO: Final = 32 + zlib.MAX_WBITS
"""zlib's word for "a gzip or zlib header, whichever is there"."""


MAX_MEMBERS: Final = 64
"""Members, one after the other, that a packed body may have."""

BUDGET: Final = 1.0
"""Seconds that unpacking a body may take."""

SMALL: Final = 4096
"""Bytes; a packed body of this size is unpacked so fast that no thread is needed."""

_SLICE: Final = 16 * 1024

_thread: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="unpack")


async def unpacked(body: bytes, coding: str, limit: int) -> bytes:
    """As `decoded`, without holding up the event loop."""
    if len(body) <= SMALL:
        return decoded(body, coding, limit)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_thread, decoded, body, coding, limit)


def decoded(body: bytes, coding: str, limit: int) -> bytes:
    """The body unpacked.

    Args:
        coding: the Content-Encoding header, empty if there is none.
        limit: bytes that it may have.

    Raises:
        BodyTooLargeError: it has more; at most `limit` were unpacked.
        UnknownCodingError: it is packed in a way that we do not know, or twice.
        BrokenCodingError: it is cut short, not packed as it says, has more than `MAX_MEMBERS`
            members, or takes longer than `BUDGET`.
    """
    name = coding.strip().lower()
    if name in {"", "identity"}:
        return body
    if name not in {"gzip", "x-gzip", "deflate"}:
        raise UnknownCodingError
    try:
        return _inflated(body, limit, raw=name == "deflate" and not _has_zlib_header(body))
    except zlib.error as error:
        raise BrokenCodingError from error


def _inflated(packed: bytes, limit: int, *, raw: bool) -> bytes:
    """Gzip may have several members, one after the other."""
    if not packed:
        return b""
    whole = bytearray()
    until = time.monotonic() + BUDGET
    at = 0
    for _ in range(MAX_MEMBERS):
        at = _member(packed, at, whole, limit, until, raw=raw)
        if at == len(packed):
            return bytes(whole)
    raise BrokenCodingError(f"the body has more than {MAX_MEMBERS} packed members")


def _member(
    packed: bytes, at: int, whole: bytearray, limit: int, until: float, *, raw: bool
) -> int:
    """Unpack the member that begins at `at` into `whole`; where the next one begins."""
    member = zlib.decompressobj(-zlib.MAX_WBITS if raw else _AUTO)
    while not member.eof:
        if time.monotonic() > until:
            raise BrokenCodingError(f"unpacking the body takes longer than {BUDGET:g} s")
        given = packed[at : at + _SLICE]
        if not given:
            raise BrokenCodingError
        whole += member.decompress(given, limit + 1 - len(whole))
        if len(whole) > limit:
            raise BodyTooLargeError
        at += len(given) - len(member.unused_data) - len(member.unconsumed_tail)
    return at


def _has_zlib_header(body: bytes) -> bool:
    """Some send "deflate" without the header that the standard wants."""
    return len(body) > 1 and body[0] & 15 == zlib.DEFLATED and int.from_bytes(body[:2]) % 31 == 0
