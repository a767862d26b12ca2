"""What is printed does no harm, and what is typed is understood."""

import json
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


@given(st.text())
def test_json_is_printable_and_says_the_same(text: str) -> None:
    line = console.json_line({"text": text})
    assert line.isprintable()
    assert json.loads(line) == {"text": text}


def test_c1_controls_are_escaped_as_json() -> None:
    assert console.json_line("\x9b31m\x7f\U000e0001é") == '"\\u009b31m\\u007f\\udb40\\udc01é"'


@pytest.mark.parametrize(
    "text",
    [
        "+1 (555) 000-1111",
        "+1.555.000.1111",
        "555 000 1111",
        "order for 1-555-000-1111",
        '{"to": "555/000 1111"}',
        "<FROM_MASK>+1 555 000 1111</FROM_MASK>",
        "XML=%3Cto%3E%2B1%20555%20000%201111%3C",
    ],
)
def test_numbers_with_separators_are_hidden(text: str) -> None:
    hidden = console.hide(text)
    assert "***" in hidden
    assert "000" not in hidden


@pytest.mark.parametrize(
    "body", ['{"to": 55501}', '{"from-mask":"call me"}', "<From>55501</From>", "to=55501&x=1"]
)
def test_what_is_a_number_by_its_field_is_hidden_whatever_it_looks_like(body: str) -> None:
    hidden = console.hide(body)
    assert "***" in hidden
    assert "550" not in hidden
    assert "call" not in hidden


def test_times_are_not_hidden() -> None:
    assert console.hide("2026-11-24T02:10:00Z") == "2026-11-24T02:10:00Z"
