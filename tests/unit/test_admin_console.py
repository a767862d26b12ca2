"""What is printed does no harm, and what is typed is understood."""

from datetime import UTC, datetime, timedelta

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.admin import console


@given(st.text())
def test_nothing_printed_moves_the_cursor(text: str) -> None:
    assert console.one_line(text).isprintable()
    assert all(each.isprintable() or each in "\n\t" for each in console.visible(text))


def test_control_characters_become_visible() -> None:
    assert console.one_line("\x1b[31m\n\u202e") == "\\x1b[31m\\n\\u202e"


@pytest.mark.parametrize(
    "body", ['{"to":"+15550001111"}', "XML=%3Cto%3E%2B15550001111%3C", "<to>15550001111</to>"]
)
def test_phone_numbers_are_hidden_wherever_they_stand(body: str) -> None:
    assert "5550001" not in console.hide(body)
    assert "***11" in console.hide(body)


def test_short_codes_and_operators_are_not() -> None:
    assert console.hide("28444 and 310030") == "28444 and 310030"


def test_a_moment_keeps_its_microseconds() -> None:
    assert console.moment(1_795_486_200_000_001) == "2026-11-24T02:10:00.000001Z"


def test_since() -> None:
    since = console.Since()
    ago = datetime.now(UTC) - since.convert("1h", None, None)
    assert abs(ago - timedelta(hours=1)) < timedelta(seconds=5)
    assert since.convert("2026-11-24T10:00:00+02:00", None, None).hour == 8
    assert since.convert("2026-11-24", None, None) == datetime(2026, 11, 24, tzinfo=UTC)
    with pytest.raises(click.BadParameter, match="span such as 30m"):
        since.convert("yesterday", None, None)
