"""hiredis writes RESP as redis-py does, on each kind of connection, with tested versions only."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.asyncio.connection import Connection

from shared.redis.client import client
from shared.redis.hiredis import with_hiredis

_arguments = st.one_of(st.text(), st.binary(), st.integers(), st.just(bytes(7000)))
_commands = st.tuples(
    st.sampled_from(["GET", "EVALSHA", "SCRIPT LOAD", "CLUSTER COUNT KEYS"]) | st.just(b"GET"),
    *[_arguments] * 3,
)
ours: Connection = with_hiredis(Redis()).connection_pool.make_connection()


@given(st.lists(_commands))
def test_a_pipeline(commands: list[tuple[str, ...]]) -> None:
    theirs = Connection()
    assert b"".join(ours.pack_commands(commands)) == b"".join(theirs.pack_commands(commands))
    for command in commands:
        assert b"".join(ours.pack_command(*command)) == b"".join(theirs.pack_command(*command))


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
@pytest.mark.parametrize("rest", ["://host:1/0", "+sentinel://host:1/mymaster/0"])
def test_a_client_of_one_server(scheme: str, rest: str) -> None:
    state = client(scheme + rest, 1)
    assert isinstance(state, Redis)
    assert state.connection_pool.connection_class.pack_commands is type(ours).pack_commands


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_client_of_a_cluster(scheme: str) -> None:
    options = client(f"{scheme}+cluster://host:1", 1).get_connection_kwargs()
    used = options["connection_class"]
    assert used is not None
    assert used.pack_commands is type(ours).pack_commands


@pytest.mark.parametrize("version", ["8.0.0", "8.99.0"])
@pytest.mark.parametrize("url", ["redis://host:1/0", "redis+cluster://host:1"])
def test_any_other_version_keeps_its_own_connections(
    version: str, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("redis.__version__", version)
    with caplog.at_level(logging.WARNING):
        opened = client(url, 1)
    used = (
        opened.connection_pool.connection_class
        if isinstance(opened, Redis)
        else opened.get_connection_kwargs()["connection_class"]
    )
    assert used is Connection
    (record,) = caplog.records
    assert f"redis-py {version} was not tested" in record.getMessage()
