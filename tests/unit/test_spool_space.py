"""The spool without space: at its limit, on a full disk, with deleted files."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ingest.spool.spool import Spool
from shared.errors import SpoolUnavailableError
from tests.support.spool import LARGE, ROOT, batches, fill, problem, started


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "spool.db"


def size_of(path: Path) -> int:
    return path.stat().st_size


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
