"""Compressed bodies: decompressed up to the limit, whatever they contain."""

import asyncio
import contextlib
import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.http.content_coding import MAX_MEMBERS, decompress, decompress_blocking
from shared.errors import BodyTooLargeError, BrokenCodingError, UnknownCodingError

LIMIT = 1000


def _raw_deflate(body: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(body) + compressor.flush()


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "identity": bytes,
    "gzip": gzip.compress,
    "X-GZIP": gzip.compress,
    " deflate ": zlib.compress,
    "deflate": _raw_deflate,
}


@pytest.mark.parametrize("coding", COMPRESSORS)
@given(body=st.binary(max_size=LIMIT))
def test_a_compressed_body_is_decompressed(coding: str, body: bytes) -> None:
    assert decompress_blocking(COMPRESSORS[coding](body), coding, LIMIT) == body


@given(st.binary(max_size=400), st.binary(max_size=400))
def test_gzip_of_two_members(one: bytes, two: bytes) -> None:
    assert decompress_blocking(gzip.compress(one) + gzip.compress(two), "gzip", LIMIT) == one + two


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_one_byte_too_many(coding: str) -> None:
    assert len(decompress_blocking(COMPRESSORS[coding](b"x" * LIMIT), coding, LIMIT)) == LIMIT
    with pytest.raises(BodyTooLargeError):
        decompress_blocking(COMPRESSORS[coding](b"x" * (LIMIT + 1)), coding, LIMIT)


def test_a_bomb_takes_no_more_memory_than_the_limit() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < 64 * 1024  # it is allowed as a body
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLargeError):
            decompress_blocking(bomb, "gzip", 64 * 1024)
        assert tracemalloc.get_traced_memory()[1] < 512 * 1024
    finally:
        tracemalloc.stop()


@given(st.binary(min_size=1, max_size=200), st.integers(min_value=1, max_value=17))
def test_cut_short(body: bytes, cut: int) -> None:
    with pytest.raises(BrokenCodingError):
        decompress_blocking(gzip.compress(body)[:-cut], "gzip", LIMIT)


@given(st.binary(), st.sampled_from(["gzip", "deflate"]))
def test_junk_raises_nothing_unexpected(body: bytes, coding: str) -> None:
    with contextlib.suppress(BrokenCodingError, BodyTooLargeError):
        assert len(decompress_blocking(body, coding, LIMIT)) <= LIMIT


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "compress"])
def test_unknown(coding: str) -> None:
    with pytest.raises(UnknownCodingError):
        decompress_blocking(b"x", coding, LIMIT)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_few_members_are_allowed_and_many_are_not(coding: str) -> None:
    one = COMPRESSORS[coding](b"x")
    assert decompress_blocking(one * MAX_MEMBERS, coding, LIMIT) == b"x" * MAX_MEMBERS
    with pytest.raises(BrokenCodingError, match="members"):
        decompress_blocking(one * (MAX_MEMBERS + 1), coding, LIMIT)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_large_body_of_many_empty_members_does_not_block_the_loop(coding: str) -> None:
    """The loop goes on while a small part of it is decompressed."""
    empty = COMPRESSORS[coding](b"")
    body = empty * (512 * 1024 // len(empty))
    decompressing = asyncio.create_task(decompress(body, coding, len(body)))
    await asyncio.sleep(0)  # it begins, and passes the work to the thread
    assert not decompressing.done()
    with pytest.raises(BrokenCodingError, match="members"):
        await decompressing
