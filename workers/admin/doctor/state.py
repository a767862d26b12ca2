"""Redis: there, new enough, keeps what it acknowledges, evicts nothing, and agrees on the time."""

import time
from collections.abc import AsyncIterator
from typing import Any, Final

from redis import exceptions
from redis.asyncio.cluster import RedisCluster

from shared.cli import counted
from shared.errors import SettingsError
from shared.log import mask
from shared.settings import Settings
from shared.state import State, client
from workers.admin.doctor.finding import (
    CALL_LIMIT,
    Finding,
    at_least,
    judged,
    ok,
    warning,
    wrong,
)

OLDEST: Final = (6, 2)
CLOCK: Final = 2.0
"""Seconds that clocks may differ; time of arrival decides between equal postbacks, and lag is now
minus received."""

FULL: Final = 0.9

_FSYNC: Final = (
    "Redis acknowledges before it is on disk: a crash loses the last changes for good. CONFIG SET"
    " appendfsync always, and in its file; until then run `mms-admin rebuild` after every crash."
)
_WANTED: Final = {
    "appendonly": (
        "yes",
        "Redis forgets everything when it restarts. CONFIG SET appendonly yes, and in its file.",
    ),
    "appendfsync": ("always", _FSYNC),
}


async def check_redis(settings: Settings) -> AsyncIterator[Finding]:
    """Each server that holds state by itself; a cluster's replicas are left to the cluster."""
    try:
        redis = client(settings.redis_url, CALL_LIMIT)
    except SettingsError as error:
        yield wrong("redis", str(error), "Correct MMS_REDIS_URL.")
        return
    try:
        async for finding in _findings(redis):
            yield finding
    except (exceptions.RedisError, OSError, TimeoutError) as error:
        reason = mask(str(error) or type(error).__name__)
        yield wrong("redis", f"does not answer: {reason}", _advice(reason))
    finally:
        await redis.aclose()


async def _findings(redis: State) -> AsyncIterator[Finding]:
    targets: list[tuple[str, dict[str, Any]]] = [("redis", {})]
    if isinstance(redis, RedisCluster):
        await redis.initialize()
        targets = [(f"redis {node.name}", {"target_nodes": node}) for node in redis.get_primaries()]
        cluster = await redis.execute_command("CLUSTER INFO", **targets[0][1])
        yield judged(
            "redis cluster",
            f"{counted(len(targets), 'primary', 'primaries')}, {cluster.get('cluster_state')}",
            good=cluster.get("cluster_state") == "ok",
            advice="Some hash slots have no primary; see CLUSTER NODES and start what is down.",
        )
    for name, target in targets:
        async for finding in _server(redis, name, target):
            yield finding
    await redis.set("mms:probe", b"", ex=60)
    await redis.eval("return redis.call('SET', KEYS[1], '', 'EX', '60')", 1, "mms:probe")
    yield ok("redis permissions", "keys are written and scripts run")


async def _server(redis: State, name: str, target: dict[str, Any]) -> AsyncIterator[Finding]:
    info = await redis.execute_command("INFO", **target)
    version = str(info["redis_version"])
    yield judged(
        f"{name} version",
        version,
        good=at_least(version, OLDEST),
        advice=f"Upgrade to {OLDEST[0]}.{OLDEST[1]} or newer.",
    )
    if info.get("role") != "master":
        yield wrong(
            f"{name} role",
            f"is a {info.get('role')}",
            "Name the master, or use redis+sentinel:// so that it is found.",
        )
    try:
        configuration = await redis.execute_command("CONFIG GET", "*", **target)
    except exceptions.ResponseError as error:  # managed servers refuse it
        yield warning(
            f"{name} persistence",
            f"cannot be asked: {mask(str(error))}",
            "See yourself that appendonly is yes, appendfsync always, maxmemory-policy noeviction.",
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
    limit, policy = int(configuration.get("maxmemory", 0)), configuration.get("maxmemory-policy")
    findings.append(
        judged(
            f"{name} eviction",
            f"maxmemory {limit}, {policy}",
            good=limit == 0 or policy == "noeviction",
            advice="Redis may drop records to make room. CONFIG SET maxmemory-policy noeviction:"
            " a full Redis then refuses, workers wait, and nothing is lost.",
        )
    )
    if limit and int(info["used_memory"]) > FULL * limit:
        findings.append(
            warning(
                f"{name} memory",
                f"{info['used_memory_human']} of {info['maxmemory_human']}",
                "Raise maxmemory or lower MMS_STATE_TTL; full, it refuses and workers wait.",
            )
        )
    return findings


async def _clock(redis: State, name: str, target: dict[str, Any]) -> Finding:
    before = time.time()
    seconds, microseconds = await redis.execute_command("TIME", **target)
    off = int(seconds) + int(microseconds) / 1e6 - (before + time.time()) / 2
    return judged(
        f"{name} clock",
        f"{off:+.3f} s from this machine's",
        good=abs(off) <= CLOCK,
        advice="Let every machine follow the same time servers (chrony or systemd-timesyncd).",
    )


def _advice(reason: str) -> str:
    if "NOPERM" in reason or "permission" in reason.lower():
        return "Give the user ~mms:* +@all -@admin, or at least +@write +@read +@scripting +@fast."
    if "WRONGPASS" in reason or "NOAUTH" in reason or "uthentication" in reason:
        return "Correct user and password in MMS_REDIS_URL."
    if "No master found" in reason:
        return (
            "See that the Sentinels run, that SENTINEL MASTERS names this master, and that they"
            " hold it to be up."
        )
    return "See that it runs and that MMS_REDIS_URL is right; see its log."
