"""`mms-admin dead purge`: remove dead letters for good, but none that came after the question."""

import click

from shared.process.cli import counted
from shared.settings.load import load_settings
from workers.admin import console
from workers.admin.dead.browse import browse
from workers.admin.dead.filter import Filter, filtered


@click.command()
@filtered
@click.option("--yes", is_flag=True, help="Remove without asking.")
def purge(wanted: Filter, *, yes: bool) -> None:
    """Remove dead letters for good. Consider `dead export` first.

    Prints their number and asks. Dead letters that arrive before the answer are not removed.
    Without options all dead letters are removed.

    \b
    Examples:
      mms-admin dead purge --reason unsupported-origin
      mms-admin dead purge --id 3f9a0c1b2d4e --yes
    """  # noqa: D301 (click reads the backslash)
    confirmed: set[str] | None = None
    if not yes:
        # The session is closed before the question: RabbitMQ closes one that is silent for long.
        confirmed, count = console.run(_look(wanted))
        question = f"Remove {counted(count, 'dead letter')} for good?"
        if count and not click.confirm(question, err=True):
            raise SystemExit(1)
    removed: list[str] = []
    if confirmed is None or confirmed:
        try:
            console.run(_remove(wanted, confirmed, removed))
        except BaseException:
            if removed:  # RabbitMQ confirms no removal: the last of them may still be there
                text = counted(len(removed), "dead letter was", "dead letters were")
                console.say(f"up to {text} removed before that")
            raise
    click.echo(f"{counted(len(removed), 'dead letter')} removed")
    if wanted.id is not None and not removed:
        raise SystemExit(1)


async def _look(wanted: Filter) -> tuple[set[str], int]:
    """The ids of the selected dead letters, and their number."""
    ids: set[str] = set()
    count = 0
    async with browse(load_settings()) as browser:
        async for held in browser.dead_letters():
            if wanted.matches(held.dead_letter):
                ids.add(held.dead_letter.id)
                count += 1
    return ids, count


async def _remove(wanted: Filter, confirmed: set[str] | None, removed: list[str]) -> None:
    """Remove the selected dead letters; `removed` gets the id of each, also if this fails.

    Args:
        confirmed: the ids that may be removed; None: all.
    """
    async with browse(load_settings()) as browser:
        async for held in browser.dead_letters():
            dead_letter_id = held.dead_letter.id
            if wanted.matches(held.dead_letter) and (
                confirmed is None or dead_letter_id in confirmed
            ):
                await browser.remove(held)
                removed.append(dead_letter_id)
