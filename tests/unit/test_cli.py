"""Words for people."""

import pytest

from shared.cli import counted, run
from shared.errors import PostbacksError


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 batches"), (1, "1 batch"), (2, "2 batches"), (21, "21 batches")]
)
def test_a_count_in_words(count: int, said: str) -> None:
    assert counted(count, "batch", "batches") == said


def test_an_s_is_enough_for_most() -> None:
    assert [counted(n, "postback") for n in (1, 2)] == ["1 postback", "2 postbacks"]


def test_errors_in_groups_end_it_with_their_first_line(capsys: pytest.CaptureFixture[str]) -> None:
    async def failing() -> None:
        raise BaseExceptionGroup("", [ExceptionGroup("", [PostbacksError("first")])])

    with pytest.raises(SystemExit) as ended:  # no group, which would become a traceback
        run(failing())
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(": first\n")


def test_an_error_that_is_none_of_ours_is_not_hidden_by_one_that_is() -> None:
    async def failing() -> None:
        raise ExceptionGroup("", [PostbacksError("ours"), KeyError("other")])

    with pytest.raises(ExceptionGroup):
        run(failing())
