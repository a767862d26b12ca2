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

from shared import cli
from shared.postback import rfc3339
from shared.settings import seconds

T = TypeVar("T")

NOTHING: Final = "-"
_UNTRUNCATED: Final = 1_000_000

_KEPT: Final = "\n\t"
_DIGITS: Final = re.compile(r"\d{5,}(\d{2})")

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
    """One JSON object on one line."""
    click.echo(msgspec.json.encode(value, enc_hook=str))


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
    """Mask every run of seven digits or more, also inside words: for raw bodies.

    A percent-encoded form writes `%2B15550001111`, which no rule about words would find.
    """
    return _DIGITS.sub(r"***\1", text)


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
            return now - timedelta(seconds=seconds(value))
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
