"""The durable local queue, on a real file."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ingest.spool import Spool
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
    return [each.batch for each in await spool.oldest(limit)]


async def test_what_goes_in_comes_out_oldest_first(spool: Spool) -> None:
    added = [b"%d" % number * (number + 1) for number in range(20)] + [b"", b"\0\xff"]
    for each in added:
        await spool.add(each, 1)
    assert await batches(spool) == added
    assert await batches(spool, 3) == added[:3]
    ids = [each.id for each in await spool.oldest(1000)]
    assert ids == sorted(set(ids))


async def test_what_is_removed_is_gone_and_its_id_never_comes_again(spool: Spool) -> None:
    for number in range(5):
        await spool.add(b"%d" % number, 1)
    ids = [each.id for each in await spool.oldest(5)]
    await spool.remove([ids[1], ids[4]])
    assert await batches(spool) == [b"0", b"2", b"3"]
    await spool.remove([ids[0], ids[2], ids[3]])
    await spool.remove(ids)  # again
    await spool.add(b"new", 1)
    (new,) = await spool.oldest(5)
    assert new.batch == b"new"
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
from ingest.spool import Spool

async def main():
    spool = Spool(Path(sys.argv[1]), 2**26)
    number = 0
    while True:
        await spool.add(b"%d" % number, 1)
        print(number, flush=True)
        number += 1

asyncio.run(main())
"""


async def test_what_add_returned_for_survives_kill_9(path: Path) -> None:
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
    assert len(kept) - len(returned) in {0, 1}  # the last one was on disk and not yet told


def size_of(path: Path) -> int:
    return path.stat().st_size


async def fill(spool: Spool, batch: bytes) -> int:
    """Add this batch until the spool is full; how often it took it."""
    for added in range(1000):
        try:
            await spool.add(batch, 1)
        except SpoolUnavailableError:
            return added
    raise AssertionError("it is never full")


async def test_a_full_spool_refuses_keeps_what_it_has_and_takes_more_when_drained(
    path: Path,
) -> None:
    spool = Spool(path, 2**18)
    added = await fill(spool, b"x" * 10_000)
    assert 0.5 * 2**18 < added * 10_000 < 2**18
    assert size_of(path) <= 2**18
    assert len(await batches(spool)) == added == spool.depth.batches
    await spool.remove([each.id for each in await spool.oldest(5)])
    await spool.add(b"y" * 10_000, 1)
    assert (await batches(spool))[-1] == b"y" * 10_000
    await spool.aclose()


async def test_many_may_make_the_same_file_at_the_same_moment(tmp_path: Path) -> None:
    """`mms-ingest --processes N` on its first start; SQLite by itself says "locked" to some."""
    at_once = 4
    together = threading.Barrier(at_once)

    def open_one(path: Path) -> Spool:
        together.wait()
        return Spool(path, LARGE)

    with ThreadPoolExecutor(at_once) as threads:
        for number in range(25):
            path = tmp_path / f"{number}.db"
            spools = list(threads.map(open_one, [path] * at_once))
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


async def test_the_lock_goes_with_the_process_that_held_it(path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from ingest.spool import Spool;"
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


async def test_after_it_is_closed_it_refuses(path: Path) -> None:
    spool = Spool(path, LARGE)
    await spool.aclose()
    with pytest.raises((SpoolUnavailableError, RuntimeError)):
        await spool.add(b"x", 1)


@pytest.mark.parametrize("what", ["no database", "a folder", "a folder that is a file"])
def test_what_cannot_be_a_spool_is_refused_by_the_settings_name(what: str, tmp_path: Path) -> None:
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
