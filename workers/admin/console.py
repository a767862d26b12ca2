"""Output of the commands: tables for people, JSON lines for programs, both safe for a terminal.

Everybody who knows the URL can send postbacks. So control characters in their fields are printed
as escapes. Phone numbers are masked unless `--raw` is set.
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
from shared.printable import printable
from shared.process import cli
from shared.settings.units import parse_seconds

T = TypeVar("T")

NOTHING: Final = "-"

MASKED: Final = 4
"""Characters of a number that is masked completely; a longer one keeps its last two."""
_UNTRUNCATED: Final = 1_000_000

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
"""A field of JSON, XML or a form whose name says that it is a phone number, and its value."""

json_option: Final = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, one object a line."
)
raw_option: Final = click.option("--raw", is_flag=True, help="Show phone numbers unmasked.")


def run(main: Coroutine[object, object, T]) -> T:
    """Run a command's coroutine; a `PostbacksError` becomes one line and exit status 2."""
    results: list[T] = []

    async def store_result() -> None:
        results.append(await main)

    cli.run(store_result())
    return results[0]


def print_json(value: object) -> None:
    """One JSON object on one line; control characters are escaped as JSON escapes them."""
    click.echo(json_line(value))


def json_line(value: object) -> str:
    """A value as JSON; every character in it can be printed."""
    text = msgspec.json.encode(value, enc_hook=str).decode()
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str | None]]) -> None:
    """Print a table: fitted to a terminal, else plain and never truncated."""
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
    """Print a line for people on standard error."""
    click.echo(visible(text), err=True)


def visible(text: str) -> str:
    """The text with its control characters as escapes; new lines and tabs stay."""
    return printable(text, keep="\n\t")


def one_line(text: str) -> str:
    """The text with every control character as an escape, new lines and tabs too."""
    return printable(text)


def hide(text: str) -> str:
    """Mask what may be a phone number in a text from outside: a body, an error, a reference.

    Masked are the values of fields that are phone numbers by their names, and seven digits or more,
    also inside words and with separators: a percent-encoded form has `%2B15550001111`.
    """
    text = _NUMBER_FIELD.sub(_hidden_field, text)
    return _DIGITS.sub(r"***\1", _SEPARATED.sub(_hidden, text))


def hide_number(number: str) -> str:
    """Mask a value that is a phone number by its field, whatever it looks like."""
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
            time = datetime.fromisoformat(value)
            return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            expected = "a span such as 30m, 1h, 7d or an ISO 8601 time"
            self.fail(f"{value!r} is not {expected}.", param, ctx)


def _console() -> Console:
    """A console on the current standard output, which a test may have replaced."""
    return Console(
        file=sys.stdout, width=None if sys.stdout.isatty() else _UNTRUNCATED, highlight=False
    )
