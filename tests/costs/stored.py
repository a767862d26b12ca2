"""The stored costs of each step, and what differs from them. To store what the code costs now:

    .venv/bin/python -m tests.costs.stored

Counts are the same on a busy and on a quiet machine, so 5 % more is a change of the code or of a
library, and not noise.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from tests.costs import callgrind
from tests.costs.count import BYTECODES, INSTRUCTIONS

ROOT: Final = Path(__file__).parents[2]
FILE: Final = Path(__file__).with_suffix(".json")
COMMAND: Final = ".venv/bin/python -m tests.costs.stored"

TOLERANCE: Final = 0.05
"""The share by which a cost may differ from the stored one."""

SLACK: Final = {BYTECODES: 0.0, INSTRUCTIONS: 500.0}
"""A difference below it is none. When C code enlarges a buffer, the C library copies it or not,
as its neighbours in memory allow. All steps together are more than 200,000 instructions."""

KINDS: Final = {
    BYTECODES: f"{sys.version_info.major}.{sys.version_info.minor}",
    INSTRUCTIONS: " ".join([*sys.version.split(), platform.machine()]),
}
"""By kind of cost, the Python that it depends on."""

Costs = Mapping[str, float]
"""By step, the cost of one postback."""


def stored(kind: str) -> Costs | None:
    """The stored costs; None when none are stored for this Python."""
    return _read().get(kind, {}).get(KINDS[kind])


def counted(kind: str) -> Costs:
    """The costs now, counted in a process of its own that has none of our settings."""
    command = [sys.executable, "-m", "tests.costs.count", kind]
    foreign = ("PYTHON", "MMS_", "PROMETHEUS_")
    environment = {name: text for name, text in os.environ.items() if not name.startswith(foreign)}
    with tempfile.TemporaryDirectory() as directory:
        if kind == INSTRUCTIONS:
            command = [*callgrind.command(Path(directory)), *command, directory]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment | {"PYTHONHASHSEED": "0"},
            check=True,
            stdout=subprocess.PIPE,
        )
    return msgspec.json.decode(done.stdout, type=dict[str, float])


def differences(kind: str, before: Costs, now: Costs) -> list[str]:
    """A line for each step whose cost differs from the stored one by more than `TOLERANCE`.

    A difference below `SLACK` is none.
    """
    lines = [
        f"{name}: {before[name]:,.1f} {kind} are stored, now it takes {cost:,.1f}"
        f" ({cost / before[name] - 1:+.1%})"
        for name, cost in now.items()
        if name in before and abs(cost - before[name]) > max(before[name] * TOLERANCE, SLACK[kind])
    ]
    lines += [f"{name}: nothing is stored" for name in now if name not in before]
    lines += [f"{name}: there is no such step any more" for name in before if name not in now]
    return lines


def _read() -> dict[str, dict[str, Costs]]:
    return msgspec.json.decode(FILE.read_bytes(), type=dict[str, dict[str, Costs]])


def main() -> None:
    """Count, print what has changed, and store all costs of this Python."""
    argparse.ArgumentParser(prog="tests.costs.stored", description=main.__doc__).parse_args()
    known = _read()
    for kind, python in KINDS.items():
        if kind == INSTRUCTIONS and (reason := callgrind.unavailable()):
            print(f"{kind} are not counted: {reason}")  # noqa: T201
            continue
        now = {name: round(cost, 2) for name, cost in counted(kind).items()}
        for line in differences(kind, known.get(kind, {}).get(python, {}), now):
            print(line)  # noqa: T201
        known.setdefault(kind, {})[python] = now
    FILE.write_bytes(msgspec.json.format(msgspec.json.encode(known), indent=1) + b"\n")


if __name__ == "__main__":
    main()
