"""Helpers for tests of the spool."""

import subprocess
import sys
from pathlib import Path

from ingest.spool.spool import Spool
from shared.errors import SpoolUnavailableError

ROOT = Path(__file__).parents[2]
LARGE = 64 * 2**20


async def batches(spool: Spool, limit: int = 1000) -> list[bytes]:
    return [each.encoded for each in await spool.oldest(limit)]


def started(program: str, path: Path) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-c", program, str(path)]
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE)


async def fill(spool: Spool, batch: bytes) -> int:
    """Add this batch until the spool is full; how often it was added."""
    for added in range(1000):
        try:
            await spool.add(batch, 1)
        except SpoolUnavailableError:
            return added
    raise AssertionError("the spool is never full")


def problem(spool: Spool) -> str | None:
    return spool.problem
