"""Redis: reachable, new enough, durable, without eviction, with the rights and the right time.

The rights of a worker are enough. If the user must not run INFO, CONFIG or TIME, the check gives a
warning, and a person has to check it.
"""

import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any, Final

from redis import exceptions
from redis.asyncio.cluster import RedisCluster

from shared.errors import SettingsError
from shared.postback.postback import Key
from shared.postback.record import reference_key
from shared.process.cli import counted
from shared.redis.client import RedisClient, client, close
from shared.redis.errors import REDIS_ERRORS
from shared.redis.version import NEEDED, read_hello, supported
from shared.settings.settings import Settings
from workers.admin.doctor.finding import (
    CALL_LIMIT,
    UNTRUSTED,
    Finding,
    judged,
    ok,
    reason,
    warning,
    wrong,
)
from workers.store import PROBE, PROBE_TTL

CLOCK_DIFFERENCE: Final = 2.0
"""Seconds that clocks may differ. The earliest time of receipt of a postback is kept, and the lag
is the time since the receipt."""

NEARLY_FULL: Final = 0.9
"""Share of `maxmemory` from which there is a warning."""

COMPACT: Final = 256
"""Bytes of a record's field that Redis should keep in one block with the others; its default is 64,
and a long client reference with a long campaign has more."""

RIGHTS: Final = "~mms:* +@read +@write +@scripting +@connection -@dangerous +info +time"
"""The rights that our Redis user needs; `+info +time` are for `doctor`."""

_MERGE: Final = """
    redis.call('HSET', KEYS[1], 'doctor', '')
    redis.call('EXPIRE', KEYS[1], 60)
    return redis.call('HDEL', KEYS[1], 'doctor')
"""
_INDEX: Final = """
    redis.call('TYPE', KEYS[1])
    redis.call('SET', KEYS[1], 'doctor', 'EX', 60)
    redis.call('GET', KEYS[1])
    redis.call('DEL', KEYS[1])
    redis.call('ZADD', KEYS[1], 'GT', 1, 'doctor')
    return redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1)
"""
"""Some commands of merge.lua and of index.lua; each script deletes its key at the end."""

_CALL_ERRORS: Final = (*REDIS_ERRORS, ValueError)
"""A `ValueError`: the server is not a Redis."""

_FSYNC: Final = (
    "Redis acknowledges changes before they are on disk, so a crash loses the last ones. Run CONFIG"
    " SET appendfsync always, and set it in its file. Until then run `mms-admin rebuild` after"
    " every crash."
)
_WANTED: Final = {
    "appendonly": (
        "yes",
        "Redis loses everything when it restarts. Run CONFIG SET appendonly yes, also in its file.",
    ),
    "appendfsync": ("always", _FSYNC),
}


async def check_redis(settings: Settings) -> AsyncIterator[Finding]:
    """Check each server that holds state, but not the replicas of a cluster."""
    try:
        redis = client(settings.redis_url, CALL_LIMIT, settings.tls_ca)
    except SettingsError as error:
        yield wrong("redis", str(error), "Correct MMS_REDIS_URL.")
        return
    try:
        async for finding in _findings(redis):
            yield finding
    except _CALL_ERRORS as error:
        why = reason(error)
        refused = isinstance(error, exceptions.ResponseError)
        yield wrong("redis", f"{'refuses' if refused else 'is unavailable'}: {why}", _advice(why))
    finally:
        with contextlib.suppress(*_CALL_ERRORS):
            await close(redis)


async def _findings(redis: RedisClient) -> AsyncIterator[Finding]:
    targets: list[tuple[str, dict[str, Any]]] = [("redis", {})]
    if isinstance(redis, RedisCluster):
        await redis.initialize()
        targets = [(f"redis {node.name}", {"target_nodes": node}) for node in redis.get_primaries()]
        cluster = await redis.execute_command("CLUSTER INFO", **targets[0][1])
        yield judged(
            "redis cluster",
            f"{counted(len(targets), 'primary', 'primaries')}, {cluster.get('cluster_state')}",
            good=cluster.get("cluster_state") == "ok",
            advice="Some hash slots have no primary; see CLUSTER NODES and start missing nodes.",
        )
    for name, target in targets:
        async for finding in _server(redis, name, target):
            yield finding
    yield await _permissions(redis)


async def _permissions(redis: RedisClient) -> Finding:
    """Run the commands of a worker in scripts that leave no key, and write the worker's probe."""
    try:
        await redis.set(PROBE, b"", ex=PROBE_TTL)
        name = secrets.token_hex(8)
        keys = {Key("message", "doctor", name).redis: _MERGE, reference_key("doctor", name): _INDEX}
        for key, script in keys.items():
            sha = await redis.script_load(script)
            await redis.execute_command("EVALSHA", sha, 1, key)
    except exceptions.ResponseError as error:
        why = reason(error)
        return wrong("redis permissions", why, _advice(why))
    return ok("redis permissions", "keys are written and scripts run")


async def _server(redis: RedisClient, name: str, target: dict[str, Any]) -> AsyncIterator[Finding]:
    # INFO's redis_version is, in Valkey, the version of Redis that it is compatible with.
    server, version = read_hello(await redis.execute_command("HELLO", **target))
    yield judged(
        f"{name} version",
        f"{server} {version}",
        good=supported(server, version),
        advice=f"Upgrade to {NEEDED}.",
    )
    try:
        info = await redis.execute_command("INFO", **target)
    except exceptions.NoPermissionError:
        info = {"role": "master"}
    if info.get("role") != "master":
        yield wrong(
            f"{name} role",
            f"is a {info.get('role')}",
            "Name the master in MMS_REDIS_URL, or use redis+sentinel://, which finds it.",
        )
    try:
        configuration = await redis.execute_command("CONFIG GET", "*", **target)
    except exceptions.ResponseError as error:  # managed servers and limited users
        yield warning(
            f"{name} persistence",
            f"cannot be read: {reason(error)}",
            "Check by hand: appendonly yes, appendfsync always, maxmemory-policy noeviction.",
        )
    else:
        for finding in _configured(name, configuration, info):
            yield finding
    if info.get("aof_last_write_status", "ok") != "ok":
        yield wrong(f"{name} disk", "its last write failed", "See its log; its disk may be full.")
    yield await _clock(redis, name, target)


def _configured(name: str, configuration: dict[str, str], info: dict[str, Any]) -> "list[Finding]":
    findings = [
        judged(f"{name} {key}", found, good=found == value, advice=advice)
        for key, (value, advice) in _WANTED.items()
        for found in (configuration.get(key, "unknown"),)
    ]
    findings.append(_compact(name, configuration))
    limit, policy = int(configuration.get("maxmemory", 0)), configuration.get("maxmemory-policy")
    findings.append(
        judged(
            f"{name} eviction",
            f"maxmemory {limit}, {policy}",
            good=limit == 0 or policy == "noeviction",
            advice="Redis may drop records to make room. Run CONFIG SET maxmemory-policy"
            " noeviction. Then a full Redis refuses writes, workers wait, and nothing is lost.",
        )
    )
    if limit and int(info.get("used_memory", 0)) > NEARLY_FULL * limit:
        findings.append(
            warning(
                f"{name} memory",
                f"{info['used_memory_human']} of {info['maxmemory_human']}",
                "Raise maxmemory or lower MMS_STATE_TTL. A full Redis refuses writes, and workers"
                " wait.",
            )
        )
    return findings


def _compact(name: str, configuration: dict[str, str]) -> Finding:
    """Whether Redis keeps a record in one block of memory, if it is not unusually large."""
    entries, value = (
        int(configuration.get(f"hash-max-listpack-{limit}", 0)) for limit in ("entries", "value")
    )
    found = f"in one block up to {entries} fields of {value} bytes"
    if value < COMPACT:
        return warning(
            f"{name} records",
            found,
            "A record with a longer field takes half as much memory again. Run CONFIG SET"
            " hash-max-listpack-value 1024, and set it in its file. It holds for new records.",
        )
    return ok(f"{name} records", found)


async def _clock(redis: RedisClient, name: str, target: dict[str, Any]) -> Finding:
    before = time.time()
    try:
        seconds, microseconds = await redis.execute_command("TIME", **target)
    except exceptions.NoPermissionError as error:
        advice = "Let the user run TIME (+time), or check by hand that the clocks agree."
        return warning(f"{name} clock", f"cannot be read: {reason(error)}", advice)
    difference = int(seconds) + int(microseconds) / 1e6 - (before + time.time()) / 2
    return judged(
        f"{name} clock",
        f"{difference:+.3f} s from this machine's",
        good=abs(difference) <= CLOCK_DIFFERENCE,
        advice="Synchronise all machines with the same time servers (chrony, systemd-timesyncd).",
    )


def _advice(why: str) -> str:
    if "NOPERM" in why or "permission" in why or "can't run this command" in why:
        return f"Grant the rights of a worker: ACL SETUSER <user> {RIGHTS}"
    if "WRONGPASS" in why or "NOAUTH" in why or "uthentication" in why:
        return "Correct user and password in MMS_REDIS_URL."
    if "certificate" in why.lower():
        return UNTRUSTED
    if "LOADING" in why:
        return "It is reading its file after a start; wait until it is done."
    if "No master found" in why:
        return (
            "Check that the Sentinels run, that SENTINEL MASTERS lists this master, and that they"
            " consider it up."
        )
    return "Check that it runs and that MMS_REDIS_URL is right; see its log."
