"""A body without its Content-Encoding, and never more of it than is wanted.

aiohttp would do this while it reads, but goes on unpacking a bomb after the answer, for as long as
it waits for the rest of the body. So it hands us bodies as they came, bounded, and they are
unpacked here, once, up to the limit.
"""

import zlib
from typing import Final

from shared.errors import BodyTooLargeError, BrokenCodingError, UnknownCodingError

_AUTO: Final = 32 + zlib.MAX_WBITS
"""zlib's word for "a gzip or zlib header, whichever is there"."""


def decoded(body: bytes, coding: str, limit: int) -> bytes:
    """The body unpacked.

    Args:
        coding: the Content-Encoding header, empty if there is none.
        limit: bytes that it may have.

    Raises:
        BodyTooLargeError: it has more; at most `limit` were unpacked.
        UnknownCodingError: it is packed in a way that we do not know, or twice.
        BrokenCodingError: it is cut short, or not packed as it says.
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
    whole = bytearray()
    while packed:
        member = zlib.decompressobj(-zlib.MAX_WBITS if raw else _AUTO)
        whole += member.decompress(packed, limit + 1 - len(whole))
        if len(whole) > limit:
            raise BodyTooLargeError
        if not member.eof:
            raise BrokenCodingError
        packed = member.unused_data
    return bytes(whole)


def _has_zlib_header(body: bytes) -> bool:
    """Some send "deflate" without the header that the standard wants."""
    return len(body) > 1 and body[0] & 15 == zlib.DEFLATED and int.from_bytes(body[:2]) % 31 == 0
