"""Topic matching as a topic exchange does it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.admin.topic import matches


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        ("#", "message.failed.31003", True),
        ("#", "", True),
        ("", "", True),
        ("*", "", False),
        ("message.failed.#", "message.failed.31003", True),
        ("message.failed.#", "message.failed", True),
        ("message.failed.#", "message.delivered.31003", False),
        ("message.*.31003", "message.expired.31003", True),
        ("message.*", "message.expired.31003", False),
        ("#.31003", "message.expired.31003", True),
        ("#.expired.#", "message.expired.31003", True),
        ("#.#", "", True),
        ("*.#.*", "one", False),
        ("*.#.*", "one.two", True),
        ("mess*", "message", False),
    ],
)
def test_examples(pattern: str, key: str, *, expected: bool) -> None:
    assert matches(pattern, key) is expected


WORDS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=6)
PATTERNS = st.lists(st.sampled_from(["a", "b", "*", "#"]), max_size=6)


@given(PATTERNS, WORDS)
def test_agrees_with_a_regular_expression(pattern: list[str], words: list[str]) -> None:
    parts = {"*": "[abc],", "#": "(?:[abc],)*"}
    expression = "".join(parts.get(word, f"{word},") for word in pattern)
    expected = re.fullmatch(expression, "".join(f"{word}," for word in words)) is not None
    assert matches(".".join(pattern), ".".join(words)) is expected


def test_many_hashes_take_no_time() -> None:
    assert not matches("#.a." * 50 + "b", "a." * 400 + "c")
