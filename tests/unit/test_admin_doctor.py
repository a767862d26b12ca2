"""What `mms-admin doctor` says about a machine, without any server."""

import sqlite3
from pathlib import Path

import msgspec
import pytest

from shared.settings import Bytes, Settings
from workers.admin.doctor import machine
from workers.admin.doctor.finding import Finding, State, at_least


async def found(settings: Settings) -> dict[str, Finding]:
    return {each.check: each async for each in machine.check_machine(settings)}


@pytest.fixture
def spooling(tmp_path: Path) -> Settings:
    path = str(tmp_path / "not" / "yet" / "spool.db")
    return Settings(spool_path=path, spool_max_bytes=Bytes(2**20))


async def test_a_folder_that_is_not_there_yet(spooling: Settings) -> None:
    findings = await found(spooling)
    assert findings["spool permissions"].state is State.OK
    assert findings["spool disk space"].state is State.OK
    assert "spool contents" not in findings


async def test_a_spool_that_is_no_database(spooling: Settings, tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    path.write_bytes(b"something else, long enough to be looked at" * 99)
    findings = await found(msgspec.structs.replace(spooling, spool_path=str(path)))
    assert findings["spool contents"].state is State.WRONG


async def test_what_waits_in_the_spool(spooling: Settings, tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE spool (spooled_at REAL, postbacks INTEGER)")
        database.execute("INSERT INTO spool VALUES (1, 7)")
    database.close()
    findings = await found(msgspec.structs.replace(spooling, spool_path=str(path)))
    assert findings["spool contents"].state is State.WARNING
    assert findings["spool contents"].found.startswith("7 postbacks")


@pytest.mark.parametrize("kind", ["tmpfs", "nfs4"])
async def test_a_file_system_that_does_not_keep(
    spooling: Settings, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(machine, "_file_system", lambda _folder: kind)
    assert (await found(spooling))["spool file system"].state is State.WRONG


async def test_no_spool_is_a_choice(spooling: Settings) -> None:
    findings = await found(msgspec.structs.replace(spooling, spool_path=""))
    assert findings["spool"].state is State.WARNING


@pytest.mark.parametrize(
    ("version", "enough"),
    [("3.10.8", True), ("3.9.29", False), ("4.0.0-rc.1", True), ("3.13", True), ("?", False)],
)
def test_versions(version: str, *, enough: bool) -> None:
    assert at_least(version, (3, 10)) is enough
