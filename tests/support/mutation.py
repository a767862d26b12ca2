"""Nearly valid bytes: valid ones after the edits of a mutation-based fuzzer."""

from hypothesis import strategies as st

_AWKWARD = st.sampled_from(
    (
        *(b"\0", b"\r\n", b"\r\n\r\n", b" ", b":", b"<", b">", b"&", b'"', b"{", b"]", b"%"),
        *(b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"-1", b"9" * 20, b"1e999", b"null"),
        *(b"<!DOCTYPE a>", b"&#0;", b"\\ud800", b"<![CDATA[", b'encoding="utf-7"'),
    )
)
_Edit = tuple[float, int, bytes]
_edit: st.SearchStrategy[_Edit] = st.tuples(
    st.floats(min_value=0, max_value=1),
    st.integers(min_value=0, max_value=12),
    st.binary(max_size=8) | _AWKWARD | st.sampled_from([b"a" * 5000, b"[" * 3000]),
)


def mutated(valid: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Valid bytes after one to four replacements of a few of them."""
    return st.builds(_apply, valid, st.lists(_edit, min_size=1, max_size=4))


def _apply(valid: bytes, edits: list[_Edit]) -> bytes:
    for place, length, new in edits:
        start = int(place * len(valid))
        valid = valid[:start] + new + valid[start + length :]
    return valid
