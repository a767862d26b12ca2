"""The output for people: a progress bar, the ledger, the report; and the result as JSON."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ingest.simulate.judge import Finding
from ingest.simulate.ledger import RESPONSE_LIMIT, Ledger
from ingest.simulate.lifecycles import Messages
from ingest.simulate.verify import Report

PROGRESS_INTERVAL: Final = 0.25
"""Seconds between two updates of the progress."""

LINE_INTERVAL: Final = 10.0
"""Seconds between two lines of progress when standard error is not a terminal."""

MAX_FINDINGS_SHOWN: Final = 10
"""Findings of each kind that are shown in full."""

Move = Callable[[int, str], None]
"""Moves a progress bar to a number of finished items, with a remark."""


@contextlib.contextmanager
def progress(total: int, what: str) -> Iterator[Move]:
    """A progress bar on standard error; some lines when that is not a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain(console, total, what)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[remark]}"),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as bar:
        task = bar.add_task(what, total=total, remark="")
        yield lambda done, remark: bar.update(task, completed=done, remark=remark)


def _plain(console: Console, total: int, what: str) -> Move:
    shown_at = time.monotonic()

    def move(done: int, remark: str) -> None:
        nonlocal shown_at
        if time.monotonic() - shown_at >= LINE_INTERVAL:
            shown_at = time.monotonic()
            console.print(f"{what}: {done} of {total}, {remark}", highlight=False)

    return move


def now(kept: Ledger) -> str:
    """The remark beside the progress bar while sending."""
    remark = f"{kept.posts / kept.seconds:.0f} POSTs/s"
    failed = kept.posts - kept.attempts["200"]
    return f"{remark}, {failed} failed, {kept.waiting} to resend" if failed else remark


def ledger(kept: Ledger, messages: Messages) -> None:
    """Print what was sent and which responses came."""
    p50, p95, p99, longest = (
        f"{seconds * 1000:.1f} ms" for seconds in kept.percentiles(0.5, 0.95, 0.99, 1.0)
    )
    rows = [
        ("run", f"{messages.run} (seed {messages.seed}, source {messages.source})"),
        ("messages", f"{len(messages)}"),
        ("postbacks", f"{len(kept.flags)}, of which {kept.sent} sent"),
        ("  answered 200", f"{kept.answered}"),
        ("  given up", f"{kept.given_up}"),
        ("POSTs", f"{kept.posts} in {kept.seconds:.1f} s, {kept.posts / kept.seconds:.0f}/s"),
        *((f"  {result}", f"{times}") for result, times in kept.attempts.most_common()),
        ("  of which duplicates", f"{kept.duplicates}"),
        ("  of other origins", f"{len(kept.other_origins)}"),
        ("  of which resends", f"{kept.resent}, and {kept.waiting} not made"),
        ("response time p50, p95, p99", f"{p50}, {p95}, {p99}"),
        ("  longest", longest),
        (f"  over {RESPONSE_LIMIT:g} s", f"{kept.late}"),
    ]
    _print("Ledger", rows)


def report(found: Report) -> None:
    """Print the result of the check."""
    rows = [
        ("messages checked", f"{found.messages}"),
        ("postbacks answered 200", f"{found.answered}"),
        ("postbacks in the state", f"{found.in_state}"),
        ("passthrough events", f"{found.passthrough}"),
        ("events", f"{found.events}, of which {found.duplicated_events} duplicated"),
        ("complete after", f"{found.seconds:.1f} s"),
        ("lost", f"{len(found.lost)}"),
        ("wrong", f"{len(found.wrong)}"),
        ("unexpected", f"{len(found.unexpected)}"),
        ("result", _result(found)),
    ]
    if not found.ok and found.answered:
        rows[5] = ("stopped waiting after", f"{found.seconds:.1f} s")
    _print("Check", rows)
    for findings in (found.lost, found.wrong, found.unexpected):
        _print_findings(findings)


def _result(found: Report) -> str:
    if not found.answered:
        return "NOT OK: nothing was answered 200, so there was nothing to check"
    return "ok" if found.ok else "NOT OK"


def as_json(kept: Ledger, messages: Messages, found: Report | None) -> dict[str, object]:
    """The result for JSON: the number of findings, and the first findings of each kind in full."""
    run = {"run": messages.run, "seed": messages.seed, "source": messages.source}
    result: dict[str, object] = {**run, "messages": len(messages), "ledger": kept.summary()}
    if found is not None:
        result["check"] = {
            "ok": found.ok,
            "messages": found.messages,
            "answered": found.answered,
            "in_state": found.in_state,
            "passthrough": found.passthrough,
            "events": found.events,
            "duplicated_events": found.duplicated_events,
            "lost": len(found.lost),
            "wrong": len(found.wrong),
            "unexpected": len(found.unexpected),
            "seconds": found.seconds,
            "findings": [
                {"fault": finding.fault, "id": finding.id, "what": finding.what}
                for findings in (found.lost, found.wrong, found.unexpected)
                for finding in findings[:MAX_FINDINGS_SHOWN]
            ],
        }
    return result


def _print(title: str, rows: Sequence[tuple[str, str]]) -> None:
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console = Console(file=sys.stdout, highlight=False)
    console.print(table)
    console.print()


def _print_findings(findings: Sequence[Finding]) -> None:
    console = Console(file=sys.stdout, highlight=False, markup=False, soft_wrap=True)
    for finding in findings[:MAX_FINDINGS_SHOWN]:
        console.print(f"{finding.fault}  {finding}")
    if len(findings) > MAX_FINDINGS_SHOWN:
        console.print(f"{findings[0].fault}  … and {len(findings) - MAX_FINDINGS_SHOWN} more")
