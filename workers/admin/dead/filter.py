"""Which dead letters a `dead` command is about: the same options for all of these commands."""

import functools
from collections.abc import Callable
from datetime import datetime

import click
import msgspec

from shared.postback.dead_letter import FORMER_REASONS, DeadLetter, Reason
from workers.admin import console


class Filter(msgspec.Struct, frozen=True):
    """Selects dead letters; what is None selects all.

    Attributes:
        source: a batch matches when any of its postbacks has this source.
        since: when the dead letter was received. Without a known time it does not match.
    """

    id: str | None = None
    reason: str | None = None
    source: str | None = None
    since: datetime | None = None

    def matches(self, dead_letter: DeadLetter) -> bool:
        return (
            (self.id is None or dead_letter.id == self.id)
            and (self.reason is None or dead_letter.reason == self.reason)
            and (self.source is None or self.source in dead_letter.sources)
            and (self.since is None or _received_since(dead_letter, self.since))
        )


def _received_since(dead_letter: DeadLetter, since: datetime) -> bool:
    return (
        dead_letter.received_at is not None and dead_letter.received_at >= since.timestamp() * 1e6
    )


_OPTIONS = (
    click.option(
        "--reason",
        type=click.Choice([*map(str, Reason), *FORMER_REASONS]),
        help="Only dead letters with this reason.",
    ),
    click.option("--source", help="Only dead letters of this provider account."),
    click.option("--since", type=console.Since(), help="Only dead letters received since then."),
    click.option("--id", "dead_letter_id", metavar="ID", help="Only this dead letter (see list)."),
)


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Add `--reason`, `--source`, `--since` and `--id` to a command; it gets them as `wanted`."""

    @functools.wraps(command)
    def with_filter(
        *,
        dead_letter_id: str | None,
        reason: str | None,
        source: str | None,
        since: datetime | None,
        **others: object,
    ) -> None:
        command(wanted=Filter(dead_letter_id, reason, source, since), **others)

    decorated: Callable[..., None] = with_filter
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated
