"""`mms-admin dead purge`: remove dead letters for good, and only those that were asked about."""

from datetime import datetime

import click

from shared.process.cli import counted
from shared.settings import settings
from workers.admin import console
from workers.admin.dead.browse import browse
from workers.admin.dead.entry import Filter
from workers.admin.dead.options import chosen, filtered


@click.command()
@filtered
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(
    letter_id: str | None,
    reason: str | None,
    source: str | None,
    since: datetime | None,
    *,
    yes: bool,
) -> None:
    """Remove dead letters for good; think of `dead export` first.

    Says how many and asks. What comes while it waits for the answer is not removed. Without
    options it is about all of them.

    \b
    Examples:
      mms-admin dead purge --reason unsupported-origin
      mms-admin dead purge --id 3f9a0c1b2d4e --yes
    """  # noqa: D301 (click reads the backslash)
    wanted = chosen(letter_id, reason, source, since)
    agreed: set[str] | None = None
    if not yes:
        # Not asked with letters in hand: RabbitMQ would hear nothing while a person thinks.
        agreed, count = console.run(_look(wanted))
        question = f"Remove {counted(count, 'dead letter')} for good?"
        if count and not click.confirm(question, err=True):
            raise SystemExit(1)
    removed: list[str] = []
    if agreed is None or agreed:
        try:
            console.run(_remove(wanted, agreed, removed))
        except BaseException:
            if removed:  # RabbitMQ confirms no removal: the last of them may still be there
                letters = counted(len(removed), "dead letter was", "dead letters were")
                console.say(f"up to {letters} removed before that")
            raise
    click.echo(f"{counted(len(removed), 'dead letter')} removed")
    if letter_id is not None and not removed:
        raise SystemExit(1)


async def _look(wanted: Filter) -> tuple[set[str], int]:
    """The ids of the letters that are meant, and how many letters that are."""
    ids: set[str] = set()
    count = 0
    async with browse(settings.load()) as browser:
        async for held in browser.letters():
            if wanted.takes(held.letter):
                ids.add(held.letter.id)
                count += 1
    return ids, count


async def _remove(wanted: Filter, agreed: set[str] | None, removed: list[str]) -> None:
    """Remove the letters that are meant; `removed` gets the id of each, also if this fails."""
    async with browse(settings.load()) as browser:
        async for held in browser.letters():
            if wanted.takes(held.letter) and (agreed is None or held.letter.id in agreed):
                await browser.remove(held)
                removed.append(held.letter.id)
