"""`mms-admin doctor` on a spool, and the order of its findings, without any server."""

import contextlib
import sqlite3
from pathlib import Path

import msgspec
import pytest

from ingest.spool.spool import Spool
from shared.errors import SpoolUnavailableError
from shared.settings.settings import Settings
from shared.settings.units import Bytes
from workers.admin.doctor import spool_checks
from workers.admin.doctor.finding import (
    REASON_LIMIT,
    Finding,
    State,
    at_least,
    causes_first,
    ok,
    reason,
    wrong,
)


async def found(settings: Settings) -> dict[str, Finding]:
    return {each.check: each async for each in spool_checks.check_spools(settings)}


@pytest.fixture
def spooling(tmp_path: Path) -> Settings:
    path = str(tmp_path / "not" / "yet" / "spool.db")
    return Settings(spool_path=path, spool_max_bytes=Bytes(2**20))


async def test_a_folder_that_does_not_exist_yet_is_fine(spooling: Settings) -> None:
    findings = await found(spooling)
    assert findings["spool permissions"].state is State.OK
    assert findings["spool disk space"].state is State.OK
    assert "spool contents" not in findings


async def test_a_spool_that_is_not_a_database_is_wrong(spooling: Settings, tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    path.write_bytes(b"something else, long enough to be looked at" * 99)
    findings = await found(msgspec.structs.replace(spooling, spool_path=str(path)))
    assert findings["spool contents"].state is State.WRONG


async def test_spooled_postbacks_are_a_warning(spooling: Settings, tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("CREATE TABLE spool (spooled_at REAL, postbacks INTEGER)")
        database.execute("INSERT INTO spool VALUES (1, 7)")
    database.close()
    findings = await found(msgspec.structs.replace(spooling, spool_path=str(path)))
    assert findings["spool contents"].state is State.WARNING
    assert findings["spool contents"].found.startswith("7 postbacks")


@pytest.mark.parametrize("kind", ["tmpfs", "nfs4"])
async def test_a_file_system_that_is_not_durable_is_wrong(
    spooling: Settings, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(spool_checks, "_file_system", lambda _folder: kind)
    assert (await found(spooling))["spool file system"].state is State.WRONG


async def test_a_full_spool_is_wrong(spooling: Settings) -> None:
    spool = Spool(Path(spooling.spool_path), spooling.spool_max_bytes)
    await spool.add(b"x" * 1000, 1)
    assert (await found(spooling))["spool room"].state is State.OK
    with contextlib.suppress(SpoolUnavailableError):
        while True:
            await spool.add(b"x" * 60_000, 1)
    full = (await found(spooling))["spool room"]
    assert full.state is State.WRONG
    assert "MMS_SPOOL_MAX_BYTES" in full.found
    await spool.aclose()


async def test_a_spool_without_its_reserve_is_wrong(spooling: Settings) -> None:
    path = Path(spooling.spool_path)
    spool = Spool(path, spooling.spool_max_bytes)
    await spool.add(b"x" * 1000, 1)
    path.with_name(f"{path.name}-reserve").unlink()
    with pytest.raises(SpoolUnavailableError):
        await spool.add(b"x" * 1000, 1)
    refusing = (await found(spooling))["spool room"]
    assert refusing.state is State.WRONG
    assert "refuses postbacks" in refusing.found
    await spool.aclose()


async def test_batches_that_were_set_aside_are_wrong(spooling: Settings) -> None:
    spool = Spool(Path(spooling.spool_path), spooling.spool_max_bytes)
    await spool.add(b"too large", 7)
    (spooled,) = await spool.oldest(1)
    await spool.replace(spooled, [], [(spooled.encoded, 7)])
    aside = (await found(spooling))["spool set aside"]
    assert aside.state is State.WRONG
    assert aside.found.startswith("7 postbacks")
    await spool.aclose()


async def test_a_pattern_names_several_spools(spooling: Settings, tmp_path: Path) -> None:
    for name in ("one", "two"):
        await Spool(tmp_path / name / "spool.db", 2**20).aclose()
    pattern = str(tmp_path / "*/spool.db")
    named = [each async for each in spool_checks.check_spools(spooling, [pattern])]
    checks = {each.check for each in named}
    assert {f"spool {tmp_path / name / 'spool.db'} contents" for name in ("one", "two")} <= checks


def test_an_effect_comes_after_its_cause() -> None:
    effect = wrong("workers", "0 consumers", "Start mms-worker.", follows=("redis", "rabbitmq"))
    cause = wrong("redis", "is unavailable", "Start it.")
    fine = ok("redis", "there")
    assert causes_first([effect, fine]) == [effect, fine]
    first, last = causes_first([effect, cause])
    assert first == cause
    assert last.check == "workers"
    assert "redis" in last.advice


def test_the_reason_of_an_error_is_one_short_line() -> None:
    assert reason(TimeoutError()) == "no response within 5 s"
    assert reason(ConnectionError("a\nb")) == "a b"
    assert len(reason(ValueError("x" * 70_000))) == REASON_LIMIT


async def test_no_spool_is_a_warning(spooling: Settings) -> None:
    findings = await found(msgspec.structs.replace(spooling, spool_path=""))
    assert findings["spool"].state is State.WARNING


@pytest.mark.parametrize(
    ("version", "enough"),
    [("3.10.8", True), ("3.9.29", False), ("4.0.0-rc.1", True), ("3.13", True), ("?", False)],
)
def test_versions_are_compared_by_number(version: str, *, enough: bool) -> None:
    assert at_least(version, (3, 10)) is enough
