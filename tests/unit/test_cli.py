"""Words for people."""

import pytest

from shared.errors import PostbacksError
from shared.process.cli import counted, only_ours


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 batches"), (1, "1 batch"), (2, "2 batches"), (21, "21 batches")]
)
def test_a_count_in_words(count: int, said: str) -> None:
    assert counted(count, "batch", "batches") == said


def test_an_s_is_enough_for_most() -> None:
    assert [counted(n, "postback") for n in (1, 2)] == ["1 postback", "2 postbacks"]


def test_an_error_of_ours_is_found_in_groups() -> None:
    ours = PostbacksError("first")
    assert only_ours(ours) is ours
    assert only_ours(ExceptionGroup("", [ExceptionGroup("", [ours]), PostbacksError()])) is ours


def test_an_error_that_is_none_of_ours_is_not_hidden_by_one_that_is() -> None:
    assert only_ours(KeyError()) is None
    assert only_ours(ExceptionGroup("", [PostbacksError("ours"), KeyError("other")])) is None
