"""Processes that share a spool: one drains, all write in fair turns."""

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ingest.spool.spool import Spool
from ingest.spool.write_turns import WriteTurns
from shared.errors import SpoolUnavailableError
from tests.support.spool import LARGE, ROOT, batches, problem, started


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "spool.db"


async def test_many_processes_may_create_the_same_file_at_the_same_time(tmp_path: Path) -> None:
    """`mms-ingest --processes N` on its first start; SQLite alone would fail with "locked"."""
    parallel = 4
    together = threading.Barrier(parallel)

    def open_one(path: Path) -> Spool:
        together.wait()
        return Spool(path, LARGE)

    with ThreadPoolExecutor(parallel) as threads:
        for number in range(25):
            path = tmp_path / f"{number}.db"
            spools = list(threads.map(open_one, [path] * parallel))
            for each in spools:
                await each.aclose()


async def test_two_processes_share_a_file_and_one_of_them_drains(path: Path) -> None:
    one, other = Spool(path, LARGE), Spool(path, LARGE)
    await asyncio.gather(*(spool.add(b"x", 1) for spool in (one, other) for _ in range(20)))
    assert len(await batches(one)) == len(await batches(other)) == 40
    assert (await one.measure()).batches == (await other.measure()).batches == 40
    assert one.lock_for_draining()
    assert not other.lock_for_draining()
    assert one.lock_for_draining()
    await one.aclose()
    assert other.lock_for_draining()
    await other.aclose()


async def test_the_drain_lock_is_released_when_its_process_ends(path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from ingest.spool.spool import Spool;"
        "print(Spool(Path(sys.argv[1]), 2**26).lock_for_draining(), flush=True);"
        "import time; time.sleep(60)"
    )
    holder = started(program, path)
    assert holder.stdout is not None
    with holder.stdout as lines:
        assert next(lines) == b"True\n"
        spool = Spool(path, LARGE)
        assert not spool.lock_for_draining()
        holder.kill()
        holder.wait()
        assert spool.lock_for_draining()
        await spool.aclose()


HOLDER = """
import asyncio, sys, time
from pathlib import Path
from ingest.spool.spool import Spool

async def main():
    spool = Spool(Path(sys.argv[1]), 2**26)
    spool._file._database.create_function("pause", 0, lambda: time.sleep(0.02))
    spool._file._database.execute(
        "CREATE TEMP TRIGGER slow AFTER INSERT ON spool BEGIN SELECT pause(); END")
    print("started", flush=True)
    sys.stdin.readline()
    end = time.monotonic() + 4
    longest = count = 0
    while time.monotonic() < end:
        began = time.monotonic()
        await spool.add(b"x" * 1000, 1)
        count += 1
        longest = max(longest, time.monotonic() - began)
    print(count, f"{longest:.3f}", flush=True)

asyncio.run(main())
"""


def test_processes_that_share_a_slow_file_have_fair_turns(path: Path) -> None:
    """Four processes write without a pause, on a disk that takes 20 ms: none exceeds its limit."""
    others = [
        subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for each in others:
        assert each.stdout is not None
        assert each.stdout.readline() == "started\n"
    for each in others:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    counts = []
    for each in others:
        said, _ = each.communicate(timeout=60)
        assert each.returncode == 0  # else one write failed: "took over 1.5 s"
        counts.append(int(said.split()[0]))
    assert min(counts) > max(counts) / 3


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.spool.spool_file.WRITE_LIMIT", 0.2)


@pytest.mark.usefixtures("impatient")
async def test_a_lock_of_another_process_is_not_a_full_disk(path: Path) -> None:
    spool = Spool(path, LARGE)
    await spool.add(b"x", 1)
    (one,) = await spool.oldest(1)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SpoolUnavailableError, match="locked"):
            await spool.remove([one.id])
        with pytest.raises(SpoolUnavailableError):
            await spool.add(b"y", 1)
        assert problem(spool)
        other.execute("ROLLBACK")
    await spool.check()
    assert not problem(spool)
    await spool.add(b"y", 1)
    await spool.remove([one.id])
    assert set(await batches(spool)) == {b"y"}  # the failed write may have been completed later
    await spool.aclose()


@pytest.mark.usefixtures("impatient")
async def test_a_process_that_is_stopped_in_its_turn_does_not_block_others_for_ever(
    path: Path,
) -> None:
    spool = Spool(path, LARGE)
    others = WriteTurns(path)
    with others.turn(1.0):
        for _ in range(3):
            with pytest.raises(SpoolUnavailableError):
                await spool.add(b"x", 1)
            assert problem(spool)
    await spool.add(b"y", 1)
    assert not problem(spool)
    assert (await batches(spool))[-1] == b"y"
    others.close()
    await spool.aclose()
