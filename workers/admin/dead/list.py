"""`mms-admin dead list`: how many of which kind, and the latest of them."""

import heapq
from collections import Counter
from datetime import datetime

import click
import msgspec

from shared.settings import settings
from workers.admin import console
from workers.admin.dead.browse import browse
from workers.admin.dead.entry import Filter, Letter
from workers.admin.dead.options import chosen, filtered


class Item(msgspec.Struct, frozen=True):
    """A letter without its body: what the list keeps of it."""

    id: str
    reason: str
    source: str
    received_at: str | None
    batch: str
    postbacks: int
    bytes: int
    content_type: str
    error: str


@click.command("list")
@filtered
@click.option(
    "--limit", type=click.IntRange(min=0), default=50, show_default=True, help="Latest to list."
)
@console.json_option
def list_dead_letters(
    letter_id: str | None,
    reason: str | None,
    source: str | None,
    since: datetime | None,
    limit: int,
    *,
    as_json: bool,
) -> None:
    """Count the dead letters by reason and list the latest.

    A batch that no worker could finish is one letter of reason "undeliverable" with several
    postbacks. With --json every letter is printed, whatever --limit says. While the command runs
    the letters are in its hands: nobody else sees them.

    \b
    Examples:
      mms-admin dead list
      mms-admin dead list --reason unknown-code --since 1d
      mms-admin dead list --json | jq -r .error | sort | uniq -c
    """  # noqa: D301 (click reads the backslash)
    console.run(_list(chosen(letter_id, reason, source, since), limit, as_json=as_json))


async def _list(wanted: Filter, limit: int, *, as_json: bool) -> None:
    letters: Counter[str] = Counter()
    postbacks: Counter[str] = Counter()
    latest: list[tuple[int, int, Item]] = []
    async with browse(settings.load()) as browser:
        async for held in browser.letters():
            letter = held.letter
            if not wanted.takes(letter):
                continue
            if as_json:
                console.print_json(_item(letter))
                continue
            letters[letter.reason] += 1
            postbacks[letter.reason] += len(letter.arrivals)
            heapq.heappush(latest, (letter.received_at or 0, letters.total(), _item(letter)))
            if len(latest) > limit:
                heapq.heappop(latest)
    if as_json:
        return
    counts = [[each, str(n), str(postbacks[each])] for each, n in letters.most_common()]
    total = [["all", str(letters.total()), str(postbacks.total())]]
    console.print_table("dead letters", ["reason", "letters", "postbacks"], counts + total)
    if latest:
        _print([item for *_, item in sorted(latest, reverse=True)], letters.total())


def _print(items: list[Item], total: int) -> None:
    title = "the latest" if len(items) < total else "all of them"
    console.print_table(
        f"{title}, latest first",
        ["id", "reason", "source", "received", "postbacks", "bytes", "error"],
        [
            [
                item.id,
                item.reason,
                item.source,
                item.received_at,
                str(item.postbacks),
                str(item.bytes),
                item.error,
            ]
            for item in items
        ],
    )


def _item(letter: Letter) -> Item:
    return Item(
        id=letter.id,
        reason=letter.reason,
        source=letter.source,
        received_at=None if letter.received_at is None else console.moment(letter.received_at),
        batch=letter.batch_id,
        postbacks=len(letter.arrivals),
        bytes=len(letter.body),
        content_type=letter.content_type,
        error=console.hide(letter.error),
    )
