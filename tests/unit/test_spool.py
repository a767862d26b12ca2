"""The spool, on a real file."""

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ingest.spool.spool import Spool
from ingest.spool.write_turns import WriteTurns
from shared.errors import SettingsError, SpoolUnavailableError

ROOT = Path(__file__).parents[2]
LARGE = 64 * 2**20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "spool.db"


@pytest.fixture
async def spool(path: Path) -> AsyncIterator[Spool]:
    spool = Spool(path, LARGE)
    yield spool
    await spool.aclose()


async def batches(spool: Spool, limit: int = 1000) -> list[bytes]:
    return [each.encoded for each in await spool.oldest(limit)]


async def test_batches_are_read_oldest_first(spool: Spool) -> None:
    added = [b"%d" % number * (number + 1) for number in range(20)] + [b"", b"\0\xff"]
    for each in added:
        await spool.add(each, 1)
    assert await batches(spool) == added
    assert await batches(spool, 3) == added[:3]
    ids = [each.id for each in await spool.oldest(1000)]
    assert ids == sorted(set(ids))


async def test_removed_batches_are_gone_and_their_ids_are_not_used_again(spool: Spool) -> None:
    for number in range(5):
        await spool.add(b"%d" % number, 1)
    ids = [each.id for each in await spool.oldest(5)]
    await spool.remove([ids[1], ids[4]])
    assert await batches(spool) == [b"0", b"2", b"3"]
    await spool.remove([ids[0], ids[2], ids[3]])
    await spool.remove(ids)  # again
    await spool.add(b"new", 1)
    (new,) = await spool.oldest(5)
    assert new.encoded == b"new"
    assert new.id > max(ids)


async def test_depth_counts_batches_postbacks_and_the_age_of_the_oldest(spool: Spool) -> None:
    assert tuple(spool.depth) == (0, 0, None)
    before = time.time()
    await spool.add(b"a", 3)
    between = time.time()
    await spool.add(b"b", 500)
    assert (spool.depth.batches, spool.depth.postbacks) == (2, 503)
    assert spool.depth.oldest is not None
    assert before <= spool.depth.oldest <= between
    assert await spool.measure() == spool.depth
    await spool.remove([(await spool.oldest(1))[0].id])
    assert (spool.depth.batches, spool.depth.postbacks) == (1, 500)
    assert spool.depth.oldest >= between


async def test_it_survives_being_closed_and_opened_again(path: Path) -> None:
    first = Spool(path, LARGE)
    await first.add(b"one", 1)
    await first.add(b"two", 2)
    await first.aclose()
    again = Spool(path, LARGE)
    assert await batches(again) == [b"one", b"two"]
    assert (again.depth.batches, again.depth.postbacks) == (2, 3)
    await again.aclose()


def started(program: str, path: Path) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-c", program, str(path)]
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE)


ADDER = """
import asyncio, sys
from pathlib import Path
from ingest.spool.spool import Spool

async def main():
    spool = Spool(Path(sys.argv[1]), 2**26)
    number = 0
    while True:
        await spool.add(b"%d" % number, 1)
        print(number, flush=True)
        number += 1

asyncio.run(main())
"""


async def test_added_batches_survive_kill_9(path: Path) -> None:
    adder = started(ADDER, path)
    assert adder.stdout is not None
    with adder.stdout as lines:
        said = [next(lines) for _ in range(20)]
        adder.send_signal(signal.SIGKILL)
        said += lines.readlines()
    assert adder.wait() == -signal.SIGKILL
    spool = Spool(path, LARGE)
    kept = await batches(spool, 100_000)
    await spool.aclose()
    returned = [line.strip() for line in said if line.endswith(b"\n")]
    assert kept[: len(returned)] == returned
    assert len(kept) - len(returned) in {
        0,
        1,
    }  # the last one was on disk, but `add` had not returned


def size_of(path: Path) -> int:
    return path.stat().st_size


async def fill(spool: Spool, batch: bytes) -> int:
    """Add this batch until the spool is full; how often it was added."""
    for added in range(1000):
        try:
            await spool.add(batch, 1)
        except SpoolUnavailableError:
            return added
    raise AssertionError("the spool is never full")


async def test_a_full_spool_refuses_keeps_its_batches_and_accepts_more_when_drained(
    path: Path,
) -> None:
    spool = Spool(path, 2**18)
    added = await fill(spool, b"x" * 10_000)
    assert 0.5 * 2**18 < added * 10_000 < 2**18
    assert size_of(path) <= 2**18
    with pytest.raises(SpoolUnavailableError, match="reached MMS_SPOOL_MAX_BYTES"):
        await spool.add(b"x" * 10_000, 1)
    assert len(await batches(spool)) == added == spool.depth.batches
    await spool.remove([each.id for each in await spool.oldest(5)])
    await spool.add(b"y" * 10_000, 1)
    assert (await batches(spool))[-1] == b"y" * 10_000
    await spool.aclose()


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


async def test_a_closed_spool_refuses(path: Path) -> None:
    spool = Spool(path, LARGE)
    await spool.aclose()
    with pytest.raises((SpoolUnavailableError, RuntimeError)):
        await spool.add(b"x", 1)


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


def problem(spool: Spool) -> str | None:
    return spool.problem


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


def test_without_wal_it_does_not_start(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill -9 would lose added batches. SQLite reports the mode in its result, not by an error."""
    connect = sqlite3.connect

    def without_shared_memory(path: Path, **options: Any) -> sqlite3.Connection:
        database: sqlite3.Connection
        database = connect(f"{path.as_uri()}?vfs=unix-dotfile", uri=True, **options)
        return database

    monkeypatch.setattr(sqlite3, "connect", without_shared_memory)
    with pytest.raises(SettingsError, match=r"MMS_SPOOL_PATH.*WAL"):
        Spool(path, LARGE)


NEARLY_FULL = """
import asyncio, resource, signal, sys
from pathlib import Path
from ingest.spool.spool import Spool
from shared.errors import SpoolUnavailableError

async def main(path):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, 2**18))  # no room for the reserve
    spool = Spool(path, 2**26)
    print(spool.depth.batches, spool.problem)
    try:
        await spool.add(b"x", 1)
    except SpoolUnavailableError as error:
        print(error)
    await spool.remove([each.id for each in await spool.oldest(100)])
    print((await spool.measure()).batches)
    await spool.aclose()

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.parametrize("before", [0, 3])
async def test_without_space_for_its_reserve_it_starts_and_drains_and_adds_nothing(
    path: Path, before: int
) -> None:
    spool = Spool(path, LARGE)
    for _ in range(before):
        await spool.add(b"x", 1)
    await spool.aclose()
    path.with_name("spool.db-reserve").unlink()
    child = started(NEARLY_FULL, path)
    assert child.stdout is not None
    with child.stdout as said:
        opened, refused, left = said.read().decode().splitlines()
    assert child.wait() == 0
    assert opened.startswith(f"{before} ")
    assert "disk is full" in opened
    assert "disk is full" in refused
    assert left == "0"


FULL_DISK = """
import asyncio, shutil, subprocess, sys
from pathlib import Path
from ingest.spool.spool import Spool
from shared.errors import SpoolUnavailableError

async def main(folder):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=True)
    spool = Spool(folder / "spool.db", 2**26)
    for _ in range(100):
        await spool.add(b"x" * 1000, 1)
    await spool.aclose()
    try:
        with (folder / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(1024))
    except OSError:
        assert shutil.disk_usage(folder).free == 0
    spool = Spool(folder / "spool.db", 2**26)
    print(spool.depth.batches, spool.problem)
    try:
        await spool.add(b"x", 1)
    except SpoolUnavailableError as error:
        print(error)
    await spool.remove([each.id for each in await spool.oldest(100)])
    (folder / "filler").unlink()
    await spool.measure()
    await spool.check()
    print(spool.problem)
    await spool.add(b"x", 1)

asyncio.run(main(Path(sys.argv[1])))
"""


def test_on_a_full_disk_it_starts_with_the_reserve_and_drains(tmp_path: Path) -> None:
    command = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no user and mount namespaces here, so no small file system")
    done = subprocess.run(
        [*command, sys.executable, "-c", FULL_DISK, str(tmp_path)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    opened, refused, again = done.stdout.splitlines()
    assert opened.startswith("100 ")
    assert "disk is full" in opened
    assert "disk is full" in refused
    assert again == "None"


async def test_check_finds_a_full_spool_without_an_add(path: Path) -> None:
    spool = Spool(path, 2**18)
    await fill(spool, b"x" * 10_000)
    await spool.aclose()
    spool = Spool(path, 2**18)
    assert not problem(spool)  # no write has failed yet
    await spool.check()
    assert problem(spool)
    await spool.remove([each.id for each in await spool.oldest(20)])
    await spool.check()
    assert not problem(spool)
    assert spool.depth.batches == len(await batches(spool))
    await spool.aclose()


@pytest.mark.parametrize("what", ["spool.db", "spool.db-wal", "spool.db-shm", "replaced", "folder"])
async def test_a_deleted_file_is_drained_and_no_batch_is_added(what: str, path: Path) -> None:
    """SQLite writes to the deleted file without an error; the file ends with the process."""
    spool = Spool(path, LARGE)
    await spool.add(b"before", 1)
    if what == "folder":
        path.parent.rename(path.parent.with_name("moved"))
    elif what == "replaced":
        shutil.copy(path, path.with_name("copy"))
        path.with_name("copy").replace(path)
    else:
        path.with_name(what).unlink()
    assert "was deleted or replaced" in str(problem(spool))
    with pytest.raises(SpoolUnavailableError, match="was deleted or replaced"):
        await spool.add(b"after", 1)
    await spool.check()
    assert "was deleted or replaced" in str(problem(spool))
    (left,) = await spool.oldest(10)
    assert left.encoded == b"before"
    await spool.remove([left.id])
    assert await batches(spool) == []
    await spool.aclose()


async def test_batches_that_are_set_aside_are_kept_and_can_be_restored(path: Path) -> None:
    spool = Spool(path, LARGE)
    for body in (b"one", b"large", b"two"):
        await spool.add(body, 5)
    large = (await spool.oldest(3))[1]
    await spool.replace(large, [(b"fits", 3)], [(b"aside", 2)])
    assert await batches(spool) == [b"one", b"two", b"fits"]
    assert (spool.depth.postbacks, spool.set_aside_postbacks) == (13, 2)
    await spool.aclose()
    spool = Spool(path, LARGE)
    assert spool.set_aside_postbacks == 2
    await spool.restore_set_aside()
    assert await batches(spool) == [b"one", b"two", b"fits", b"aside"]
    assert (spool.depth.postbacks, spool.set_aside_postbacks) == (15, 0)
    await spool.aclose()


@pytest.mark.parametrize("what", ["no database", "a folder", "a folder that is a file"])
def test_a_path_that_cannot_be_a_spool_is_refused_with_the_setting_s_name(
    what: str, tmp_path: Path
) -> None:
    path = tmp_path / "spool.db"
    if what == "no database":
        path.write_bytes(b"hello" * 1000)
    elif what == "a folder":
        path.mkdir()
    else:
        path.write_text("hello")
        path /= "spool.db"
    with pytest.raises(SettingsError, match="MMS_SPOOL_PATH") as caught:
        Spool(path, LARGE)
    assert os.fspath(path) in str(caught.value)


async def test_batches_read_together_are_limited_in_bytes(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.spool.spool_file.MAX_READ", 10)
    for batch in (b"a" * 4, b"b" * 6, b"c", b"d" * 20):
        await spool.add(batch, 1)
    assert [each.encoded for each in await spool.oldest(9)] == [b"a" * 4, b"b" * 6]
    await spool.remove([each.id for each in await spool.oldest(9)])
    assert [each.encoded for each in await spool.oldest(9)] == [b"c"]
    await spool.remove([each.id for each in await spool.oldest(9)])
    assert [each.encoded for each in await spool.oldest(9)] == [b"d" * 20]


async def test_the_depth_of_a_large_spool_is_counted_only_from_time_to_time(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counting at each removal would make draining a large spool slower than filling it."""
    monkeypatch.setattr("ingest.spool.spool_file.MAX_EXACT_DEPTH", 3)
    monkeypatch.setattr("ingest.spool.spool_file.MEASURE_INTERVAL", 3600.0)
    for number in range(6):
        await spool.add(b"%d" % number, 1)
    await spool.measure()
    await spool.remove([each.id for each in await spool.oldest(2)])
    assert spool.depth.batches == 6
    assert (await spool.measure()).batches == 4
    monkeypatch.setattr("ingest.spool.spool_file.MAX_EXACT_DEPTH", 10)
    await spool.remove([each.id for each in await spool.oldest(2)])
    assert spool.depth.batches == 2
