"""The spool, on a real file."""

import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ingest.spool.spool import Spool
from shared.errors import SettingsError, SpoolUnavailableError
from tests.support.spool import LARGE, batches, started


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "spool.db"


@pytest.fixture
async def spool(path: Path) -> AsyncIterator[Spool]:
    spool = Spool(path, LARGE)
    yield spool
    await spool.aclose()


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


async def test_a_closed_spool_refuses(path: Path) -> None:
    spool = Spool(path, LARGE)
    await spool.aclose()
    with pytest.raises((SpoolUnavailableError, RuntimeError)):
        await spool.add(b"x", 1)


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
