"""Bodies that are nearly postbacks: decoded, or a dead letter, and without a memory leak."""

import gc
import tracemalloc
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import OtherOriginError, UndecodableError
from shared.postback import envelope
from shared.postback.envelope import Arrival
from shared.postback.normalise import decode
from shared.postback.passthrough import PassthroughEvent, passthrough_of
from shared.postback.postback import NormalisedPostback
from tests.support.budget import fuzzed
from tests.support.mutation import mutated
from tests.support.strategies import DIALECTS, postback_fields

MAX_REPEATED = 300
MAX_GROWTH = 64 * 1024


def outcome(body: bytes) -> NormalisedPostback | PassthroughEvent | None:
    """The decoded body; None for a dead letter. Any other error fails the test."""
    try:
        return decode("acme", body)
    except OtherOriginError as other:
        try:
            return passthrough_of(Arrival(1, "acme", "", body), other.fields)
        except UndecodableError:
            return None
    except UndecodableError:
        return None


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_mutated_postbacks(dialect: str) -> None:
    _fuzz(mutated(postback_fields().map(DIALECTS[dialect])))


def test_junk() -> None:
    starts = st.sampled_from([b"", b"{", b"[", b"<postback>", b"<?xml", b"XML=", b"\xff\xfe<\0"])
    _fuzz(st.builds(bytes.__add__, starts, st.binary(max_size=200)))


def test_batches() -> None:
    """A message that is not a batch raises `DecodeError` and no other error."""
    batch = st.builds(Arrival, st.integers(0, 2**63), st.text(), st.text(), st.binary())
    messages = st.lists(batch, max_size=3).map(envelope.encode)

    @fuzzed
    @given(mutated(messages) | st.binary())
    def fuzz(message: bytes) -> None:
        try:
            envelope.decode(message)
        except msgspec.DecodeError:
            return

    fuzz()


def test_a_batch_with_a_text_that_is_not_utf8() -> None:
    """Found by the test above: msgspec raised a UnicodeDecodeError, which ended the worker."""
    broken = envelope.encode([Arrival(1, "acme", "", b"")]).replace(b"acme", b"\xff\xff\xff\xff")
    with pytest.raises(msgspec.DecodeError):
        envelope.decode(broken)


def _fuzz(bodies: st.SearchStrategy[bytes]) -> None:
    repeated: list[bytes] = []

    @fuzzed
    @given(bodies)
    def fuzz(body: bytes) -> None:
        if len(repeated) < MAX_REPEATED:
            repeated.append(body)
        assert outcome(body) == outcome(body)

    fuzz()
    _check_memory(lambda: [outcome(body) for body in repeated])


def _check_memory(once: Callable[[], object]) -> None:
    """Repeated decoding leaves no memory allocated."""
    for _ in range(2):
        once()
    gc.collect()
    tracemalloc.start()
    try:
        once()
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(3):
            once()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < MAX_GROWTH
