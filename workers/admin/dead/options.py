"""The options that narrow what a `dead` command is about, alike for all of them."""

from collections.abc import Callable
from datetime import datetime
from typing import Final

import click

from shared.errors import Reason
from workers.admin import console
from workers.admin.dead.entry import Filter

# Of dead letters that an earlier release wrote; replayed, they are passed on as events.
_FORMER_REASONS: Final = ("unsupported-origin",)


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--reason`, `--source`, `--since` and `--id`; see `chosen`."""
    for option in reversed(
        (
            click.option(
                "--reason",
                type=click.Choice([*map(str, Reason), *_FORMER_REASONS]),
                help="Only these.",
            ),
            click.option("--source", help="Only this provider account's."),
            click.option("--since", type=console.Since(), help="Only those received since then."),
            click.option("--id", "letter_id", metavar="ID", help="Only this one (see list)."),
        )
    ):
        command = option(command)
    return command


def chosen(
    letter_id: str | None, reason: str | None, source: str | None, since: datetime | None
) -> Filter:
    """The filter that the options of `filtered` stand for."""
    return Filter(id=letter_id, reason=reason, source=source, since=since)
