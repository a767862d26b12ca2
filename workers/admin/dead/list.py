"""`mms-admin dead list`: count the dead letters by reason, and list the latest."""

import heapq
from collections import Counter

import click
import msgspec

from shared.postback.dead_letter import DeadLetter
from shared.settings.load import load_settings
from workers.admin import console
from workers.admin.dead.browse import browse
from workers.admin.dead.filter import Filter, filtered


class Item(msgspec.Struct, frozen=True):
    """One line of the list: a dead letter without its body."""

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
    "--limit",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="How many of the latest to list.",
)
@console.json_option
def list_dead_letters(wanted: Filter, limit: int, *, as_json: bool) -> None:
    """Count the dead letters by reason and list the latest.

    A batch that no worker could finish is one dead letter with the reason "undeliverable" and
    several postbacks. With --json all dead letters are printed, whatever --limit says. While this
    command runs, other consumers do not see the dead letters.

    \b
    Examples:
      mms-admin dead list
      mms-admin dead list --reason unknown-code --since 1d
      mms-admin dead list --json | jq -r .error | sort | uniq -c
    """  # noqa: D301 (click reads the backslash)
    console.run(_list(wanted, limit, as_json=as_json))


async def _list(wanted: Filter, limit: int, *, as_json: bool) -> None:
    counts: Counter[str] = Counter()
    postbacks: Counter[str] = Counter()
    latest: list[tuple[int, int, Item]] = []
    async with browse(load_settings()) as browser:
        async for held in browser.dead_letters():
            dead_letter = held.dead_letter
            if not wanted.matches(dead_letter):
                continue
            if as_json:
                console.print_json(_item(dead_letter))
                continue
            counts[dead_letter.reason] += 1
            postbacks[dead_letter.reason] += len(dead_letter.arrivals)
            received_at = dead_letter.received_at or 0
            heapq.heappush(latest, (received_at, counts.total(), _item(dead_letter)))
            if len(latest) > limit:
                heapq.heappop(latest)
    if as_json:
        return
    rows = [[reason, str(n), str(postbacks[reason])] for reason, n in counts.most_common()]
    total = [["all", str(counts.total()), str(postbacks.total())]]
    console.print_table("dead letters", ["reason", "dead letters", "postbacks"], rows + total)
    if latest:
        _print([item for *_, item in sorted(latest, reverse=True)], counts.total())


def _print(items: list[Item], total: int) -> None:
    title = "the latest" if len(items) < total else "all"
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


def _item(dead_letter: DeadLetter) -> Item:
    received_at = dead_letter.received_at
    return Item(
        id=dead_letter.id,
        reason=dead_letter.reason,
        source=",".join(dead_letter.sources),
        received_at=None if received_at is None else console.moment(received_at),
        batch=dead_letter.batch_id,
        postbacks=len(dead_letter.arrivals),
        bytes=len(dead_letter.body),
        content_type=dead_letter.content_type,
        error=console.hide(dead_letter.error),
    )
