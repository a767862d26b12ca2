"""Numbers with their nouns, and the errors that a command shows."""

import pytest

from shared.errors import PostbacksError
from shared.process.cli import counted, only_ours


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 batches"), (1, "1 batch"), (2, "2 batches"), (21, "21 batches")]
)
def test_a_number_with_its_noun(count: int, text: str) -> None:
    assert counted(count, "batch", "batches") == text


def test_the_usual_plural_has_an_s() -> None:
    assert [counted(n, "postback") for n in (1, 2)] == ["1 postback", "2 postbacks"]


def test_a_postbacks_error_is_found_in_groups() -> None:
    ours = PostbacksError("first")
    assert only_ours(ours) is ours
    assert only_ours(ExceptionGroup("", [ExceptionGroup("", [ours]), PostbacksError()])) is ours


def test_a_postbacks_error_does_not_hide_another_error() -> None:
    assert only_ours(KeyError()) is None
    assert only_ours(ExceptionGroup("", [PostbacksError("ours"), KeyError("other")])) is None
