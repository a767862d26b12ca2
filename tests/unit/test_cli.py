"""Words for people."""

import pytest

from shared.cli import counted


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 batches"), (1, "1 batch"), (2, "2 batches"), (21, "21 batches")]
)
def test_a_count_in_words(count: int, said: str) -> None:
    assert counted(count, "batch", "batches") == said


def test_an_s_is_enough_for_most() -> None:
    assert [counted(n, "postback") for n in (1, 2)] == ["1 postback", "2 postbacks"]
