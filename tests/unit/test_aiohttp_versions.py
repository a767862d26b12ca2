"""The fast path is on with the installed version of aiohttp, and off with an untested one."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

import ingest.http.connections
from ingest.batcher import Batcher
from ingest.http.connection import Connection
from ingest.http.fast_path import TESTED, FastConnection
from ingest.http.server import Server
from shared.postback.envelope import Arrival
from shared.settings.settings import Settings

LOCKED = sorted(Path(__file__).parents[2].glob("requirements*.txt"))


@pytest.mark.parametrize("path", LOCKED, ids=lambda path: path.name)
def test_the_installed_version_is_tested(path: Path) -> None:
    pinned = re.search(r"^aiohttp==(\S+)", path.read_text(), re.MULTILINE)
    assert pinned is not None
    assert pinned[1] in TESTED


@pytest.mark.parametrize("version", ["3.14.3", "3.14.99", "3.13.0"])
async def test_the_fast_path_is_off_with_an_untested_version(
    version: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(_connections()(), FastConnection)
    assert not caplog.records
    monkeypatch.setattr("aiohttp.__version__", version)
    connections = _connections()
    for _ in range(3):
        assert type(connections()) is Connection
    (record,) = caplog.records
    assert f"aiohttp {version} was not tested with the fast path" in record.getMessage()


def _connections() -> ingest.http.connections.Connections:
    async def commit(_batch: Sequence[Arrival]) -> str:
        raise AssertionError

    return Server(Settings(), Batcher(commit)).aiohttp_server()
