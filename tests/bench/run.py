"""`make bench`: the speed on this machine, compared with common alternatives.

It starts private servers and all processes, measures, prints tables, and writes `results.json`,
`RESULTS.md` and charts. Ctrl-C ends it early and leaves nothing running.
"""

import argparse
import contextlib
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from shared.errors import PostbacksError
from tests.bench import (
    endtoend,
    growth,
    ingress,
    machine,
    memory,
    microsection,
    report,
    waiting,
    worker,
)
from tests.bench.results import Section
from tests.bench.scale import FULL, QUICK, USUAL, Scale
from tests.bench.site import ROOT, Site, open_site, say

CASES: Final[dict[str, Callable[[Site, Scale], Section]]] = {
    "ingress": ingress.measure,
    "worker": worker.measure,
    "end-to-end": endtoend.measure,
    "waiting": waiting.measure,
    "growth": growth.measure,
    "memory": memory.measure,
    "micro": microsection.measure,
}


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="only to see that it works")
    size.add_argument("--full", action="store_true", help="a million records, more rounds")
    parser.add_argument("--only", action="append", choices=CASES, help="one case; may be repeated")
    parser.add_argument(
        "--peers-python",
        type=Path,
        default=ROOT / ".venv-bench/bin/python",
        help="a Python that has tests/bench/requirements.txt",
    )
    parser.add_argument("--var", type=Path, default=ROOT / "var/bench", help="made and removed")
    parser.add_argument("--out", type=Path, default=ROOT / "tests/bench", help="for the results")
    arguments = parser.parse_args()
    scale, name = (
        (QUICK, "quick")
        if arguments.quick
        else (FULL, "full")
        if arguments.full
        else (USUAL, "usual")
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with open_site(arguments.var, arguments.peers_python.absolute()) as site:
            _measure(site, scale, name, arguments.only or list(CASES), arguments.out)
    except PostbacksError as error:
        raise SystemExit(f"bench: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _measure(site: Site, scale: Scale, name: str, wanted: Sequence[str], out: Path) -> None:
    described = machine.describe(site)
    sections = []
    for case in wanted:
        section = CASES[case](site, scale)
        sections.append(section)
        with contextlib.suppress(BrokenPipeError):
            for table in section.tables:
                report.show(table)
    report.write(out, described, sections, name)
    say(
        f"written to {out}; `.venv/bin/python -m tests.support.tables` brings the manual up to date"
    )


if __name__ == "__main__":
    main()
