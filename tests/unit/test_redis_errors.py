"""Which errors of Redis are worth waiting for: the texts of the servers that people run."""

import asyncio

import pytest
from redis import exceptions

from shared.errors import StateUnavailableError
from shared.redis.errors import is_temporary, redis_errors
from shared.redis.version import read_hello

# The text as redis-py leaves it: without the word that it has made a class of, or without `ERR`.
PASSING = {
    "6.2, out of memory in a script": exceptions.ResponseError(
        "Error running script (call to f_6a1): @user_script:45: @user_script: 45: -OOM command not"
        " allowed when used memory > 'maxmemory'."
    ),
    "6.2, read-only in a script": exceptions.ResponseError(
        "Error running script (call to f_6a1): @user_script:45: @user_script: 45: -READONLY You"
        " can't write against a read only replica."
    ),
    "6.2, failed snapshot in a script": exceptions.ResponseError(
        "Error running script (call to f_6a1): @user_script:45: @user_script: 45: -MISCONF Redis"
        " is configured to save RDB snapshots, but it is currently not able to persist on disk."
    ),
    "6.2, too few replicas in a script": exceptions.ResponseError(
        "Error running script (call to f_6a1): @user_script:45: @user_script: 45: -NOREPLICAS Not"
        " enough good replicas to write."
    ),
    "7, out of memory": exceptions.OutOfMemoryError(
        "command not allowed when used memory > 'maxmemory'. script: 6a1, on @user_script:45."
    ),
    "7, read-only": exceptions.ReadOnlyError("You can't write against a read only replica."),
    "7, failed snapshot": exceptions.ResponseError("MISCONF Errors writing to the AOF file"),
    "7, too few replicas": exceptions.ResponseError("NOREPLICAS Not enough good replicas to write"),
    "7, a script runs": exceptions.ResponseError("BUSY Redis is busy running a script."),
    "8, a script that wrote runs": exceptions.ResponseError("UNKILLABLE Sorry the script already"),
    "loading": exceptions.BusyLoadingError("Redis is loading the dataset in memory"),
    "a primary that is away": exceptions.MasterDownError("Link with MASTER is down"),
    "a cluster that is down": exceptions.ClusterDownError("The cluster is down"),
    "a slot that moves": exceptions.TryAgainError("Multiple keys request during rehashing"),
    "rights": exceptions.NoPermissionError("User mms has no permissions to run 'evalsha'"),
    "a password": exceptions.AuthenticationError("Authentication required."),
    "a lost connection": exceptions.ConnectionError("Connection closed by server."),
    "out of memory, in a pipeline": exceptions.ResponseError(
        "Command # 1 (EVALSHA 6a1) of pipeline caused error: OOM command not allowed"
    ),
    "no script": exceptions.NoScriptError("No matching script."),
}

REFUSALS = {
    "6.2, another type": exceptions.ResponseError(
        "Error running script (call to f_6a1): @user_script:45: WRONGTYPE Operation against a key"
        " holding the wrong kind of value"
    ),
    "7, another type": exceptions.ResponseError(
        "WRONGTYPE Operation against a key holding the wrong kind of value script: 6a1, on"
        " @user_script:45."
    ),
    "7, no number": exceptions.ResponseError(
        "hash value is not an integer script: 6a1, on @user_script:36."
    ),
    "7, an error of the script": exceptions.ResponseError(
        "user_script:30: attempt to compare nil with string script: 6a1, on @user_script:30."
    ),
}


@pytest.mark.parametrize("error", PASSING.values(), ids=PASSING)
def test_redis_cannot_work_now(error: Exception) -> None:
    assert is_temporary(error)


@pytest.mark.parametrize("error", REFUSALS.values(), ids=REFUSALS)
def test_redis_refuses_this_record(error: Exception) -> None:
    assert not is_temporary(error)


@pytest.mark.parametrize(
    "error",
    [
        exceptions.ConnectionError("gone"),
        exceptions.RedisClusterException("Redis Cluster cannot be connected"),
        exceptions.SlotNotCoveredError("Command # 1 (EVALSHA) of pipeline"),
        KeyError(5461),
        ConnectionResetError("reset"),
        TimeoutError(),
        asyncio.IncompleteReadError(b"", 2),
        RuntimeError(
            "unable to perform operation on <TCPTransport closed=True>; the handler is closed"
        ),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_of_an_unavailable_server_are_translated(error: Exception) -> None:
    with pytest.raises(StateUnavailableError, match=r"^Redis is not available: ."), redis_errors():
        raise error


@pytest.mark.parametrize(
    "defect",
    [
        TypeError("no bytes"),
        exceptions.DataError("Invalid input of type: 'NoneType'"),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
        RecursionError(),
        NotImplementedError(),
    ],
    ids=lambda defect: type(defect).__name__,
)
def test_a_defect_of_ours_is_not_taken_for_an_absence(defect: Exception) -> None:
    with pytest.raises(type(defect)), redis_errors():
        raise defect


@pytest.mark.parametrize(
    ("reply", "server"),
    [
        ([b"server", b"redis", b"version", b"6.2.14", b"proto", 2], ("redis", "6.2.14")),
        ({"server": "valkey", "version": "8.1.1", "proto": 3}, ("valkey", "8.1.1")),
        ({b"server": b"Redis", b"version": b"8.0.2"}, ("redis", "8.0.2")),
        ([], ("redis", "0")),
        (None, ("redis", "0")),
    ],
)
def test_the_reply_to_hello_is_read(reply: object, server: tuple[str, str]) -> None:
    assert read_hello(reply) == server
