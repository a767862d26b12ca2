"""How the commands speak: tables for people, JSON lines for programs, nothing that bites.

Whoever knows the URL can send postbacks, so what they hold is printed with control characters
made visible. Phone numbers are masked unless a command is told `--raw`.
"""

import re
import sys
from collections.abc import Coroutine, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import click
import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shared.postback.timestamps import rfc3339
from shared.process import cli
from shared.settings.units import parse_seconds

T = TypeVar("T")

NOTHING: Final = "-"

MASKED: Final = 4
"""Characters of a number of which nothing is shown; of a longer one the last two are."""
_UNTRUNCATED: Final = 1_000_000

_KEPT: Final = "\n\t"
_DIGITS: Final = re.compile(r"\d{5,}(\d{2})")

_BETWEEN: Final = r"(?:[ \u00a0./()+_-]|%[0-9A-Fa-f]{2})"
_SEPARATED: Final = re.compile(
    # A time in ISO 8601 stays.
    r"(?P<time>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?)"
    rf"|\d(?:{_BETWEEN}{{0,3}}\d){{4,}}{_BETWEEN}{{0,3}}(?P<last>\d{_BETWEEN}{{0,3}}\d)"
)
"""Seven digits or more, also with separators between them."""

_NUMBER_FIELD: Final = re.compile(
    r"(?P<name>(?<![a-z_-])(?:to|from|from[-_]mask))"
    r"(?P<is>[\"']?\s*:\s*[\"']?|\s*>|=)(?P<value>[^<\"',&}\r\n]+)",
    re.IGNORECASE,
)
"""A field of JSON, XML or a form that is a phone number by its name, with what it holds."""

json_option: Final = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, one object a line."
)
raw_option: Final = click.option("--raw", is_flag=True, help="Show phone numbers unmasked.")


def run(main: Coroutine[object, object, T]) -> T:
    """Run a command's coroutine; an error of ours becomes one line and exit status 2."""
    results: list[T] = []

    async def keep() -> None:
        results.append(await main)

    cli.run(keep())
    return results[0]


def print_json(value: object) -> None:
    """One JSON object on one line; control characters are escaped as JSON escapes them."""
    click.echo(json_line(value))


def json_line(value: object) -> str:
    """A value as JSON in which every character can be printed."""
    text = msgspec.json.encode(value, enc_hook=str).decode()
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str | None]]) -> None:
    """A table: boxed and fitted on a terminal, else plain and never truncated."""
    console = _console()
    table = Table(
        box=box.SIMPLE_HEAD if console.is_terminal else None,
        pad_edge=False,
    )
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(one_line(cell) if cell else NOTHING) for cell in row))
    console.print(Text(one_line(title), style="bold"))
    console.print(table)
    console.print()


def say(text: str) -> None:
    """One line for people, beside the output."""
    click.echo(visible(text), err=True)


def visible(text: str) -> str:
    """The text with its control characters as escapes; new lines and tabs stay."""
    return "".join(
        each if each.isprintable() or each in _KEPT else each.encode("unicode_escape").decode()
        for each in text
    )


def one_line(text: str) -> str:
    """The text with every control character as an escape, new lines and tabs too."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def hide(text: str) -> str:
    """Mask what may be a phone number in a text that is not ours: a body, an error, a reference.

    That is what a field holds that is a number by its name, and seven digits or more, also with
    separators between them and inside words: a percent-encoded form writes `%2B15550001111`.
    """
    text = _NUMBER_FIELD.sub(_hidden_field, text)
    return _DIGITS.sub(r"***\1", _SEPARATED.sub(_hidden, text))


def hide_number(number: str) -> str:
    """Mask what is a phone number by its field, whatever it looks like."""
    return f"***{number[-2:]}" if len(number) > MASKED else "***"


def _hidden_field(match: re.Match[str]) -> str:
    value = match["value"].strip()
    return f"{match['name']}{match['is']}{hide_number(value) if value else match['value']}"


def _hidden(match: re.Match[str]) -> str:
    return f"***{match['last']}" if match["last"] else match[0]


def moment(received_at: int) -> str:
    """Microseconds since the Unix epoch as RFC 3339 in UTC."""
    return rfc3339(datetime.fromtimestamp(0, UTC) + timedelta(microseconds=received_at))


class Since(click.ParamType[datetime]):
    """A point in time: a span before now (`90s`, `30m`, `1h`, `7d`) or an ISO 8601 time."""

    name = "time"

    def convert(
        self,
        value: str | datetime,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> datetime:
        if isinstance(value, datetime):
            return value
        now = datetime.now(UTC)
        try:
            return now - timedelta(seconds=parse_seconds(value))
        except (ValueError, OverflowError):
            pass
        try:
            given = datetime.fromisoformat(value)
            return given.astimezone(UTC) if given.tzinfo else given.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            wanted = "a span such as 30m, 1h, 7d or an ISO 8601 time"
            self.fail(f"{value!r} is not {wanted}.", param, ctx)


def _console() -> Console:
    """Standard output as it is now (a test may have replaced it)."""
    return Console(
        file=sys.stdout, width=None if sys.stdout.isatty() else _UNTRUNCATED, highlight=False
    )
