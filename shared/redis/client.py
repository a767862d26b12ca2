"""The Redis client for `MMS_REDIS_URL`: one server, a cluster, or the master that Sentinel names.

    redis://host:6379/0                               one server
    redis+cluster://host:6379,host:6379               any nodes of a cluster
    redis+sentinel://host:26379,host:26379/mymaster/0 Sentinels, the master's name, the database

`rediss` instead of `redis` means TLS; certificates are always verified. User and password come
once, before the hosts: `redis+cluster://user:password@host:6379,host:6379`.
"""

import re
from typing import Final, NamedTuple, TypedDict
from urllib.parse import quote, unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff

from shared.errors import SettingsError
from shared.redis.hiredis import cluster_with_hiredis, with_hiredis

RedisClient = Redis | RedisCluster
"""A client of one server or of a cluster; the commands that we use are the same."""

_URL: Final = re.compile(r"redis(s?)(?:\+(cluster|sentinel))?://(.*)", re.DOTALL)
_UNVERIFIED: Final = ("ssl_cert_reqs", "ssl_check_hostname")


def client(url: str, limit: float, ca: str = "") -> RedisClient:
    """A client for `MMS_REDIS_URL`. It connects at the first command and never retries by itself.

    Args:
        limit: seconds for a connection and for a reply.
        ca: file of the authorities that sign servers' certificates; empty: the system's.

    Raises:
        SettingsError: the URL or the file cannot be read; the message repeats nothing of the URL.
    """
    parts = _URL.fullmatch(url)
    if parts is None:
        raise SettingsError(f"MMS_REDIS_URL cannot be read: {_EXPECTED}")
    if any(option in url for option in _UNVERIFIED):
        raise SettingsError(
            "MMS_REDIS_URL has an option that turns verification off, but certificates are always"
            " verified; name their authority with MMS_TLS_CA"
        )
    secure, kind, rest = parts.groups()
    tls = _Tls(ssl=True, ssl_ca_certs=ca or None) if secure else _Tls()
    try:
        if kind == "cluster":
            return _cluster(_parse(rest), limit, tls)
        if kind == "sentinel":
            return _sentinel(_parse(rest), limit, tls)
        int(urlsplit(url).path.removeprefix("/") or 0)  # redis-py ignores what is not a number
        if secure and ca:
            url += f"{'&' if '?' in url else '?'}ssl_ca_certs={quote(ca)}"
        return with_hiredis(
            Redis.from_url(
                url, socket_timeout=limit, socket_connect_timeout=limit, retry=_no_retry()
            )
        )
    except ValueError:  # its text may contain a part of a password
        raise SettingsError(f"MMS_REDIS_URL cannot be read: {_EXPECTED}") from None


_EXPECTED: Final = (
    "it is none of redis://, redis+cluster:// and redis+sentinel://, a part of it is not a"
    " host:port, or its database is not a number (a Sentinel's ends with"
    " /<name of the master>/<database>); in a password write / as %2F, # as %23, ? as %3F, @ as %40"
)


class _Tls(TypedDict, total=False):
    """A client's options for TLS."""

    ssl: bool
    ssl_ca_certs: str | None


async def close(client: RedisClient) -> None:
    """Close all connections, those to Sentinels too. The client can be used again afterwards."""
    await client.aclose()
    if isinstance(client, Redis) and isinstance(client.connection_pool, SentinelConnectionPool):
        for sentinel in client.connection_pool.sentinel_manager.sentinels:
            await sentinel.aclose()


class _Parts(NamedTuple):
    hosts: list[tuple[str, int]]
    username: str | None
    password: str | None
    path: list[str]


def _parse(rest: str) -> _Parts:
    location, _, path = rest.partition("/")
    credentials, _, hosts = location.rpartition("@")
    username, _, password = credentials.partition(":")
    return _Parts(
        hosts=[_host(each) for each in hosts.split(",")],
        username=unquote(username) or None,
        password=unquote(password) or None,
        path=[part for part in path.split("/") if part],
    )


def _host(text: str) -> tuple[str, int]:
    host, _, port = text.strip().rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(text)
    return host, int(port)


def _cluster(parts: _Parts, limit: float, tls: _Tls) -> RedisCluster:
    cluster = RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in parts.hosts],
        username=parts.username,
        password=parts.password,
        socket_timeout=limit,
        socket_connect_timeout=limit,
        retry=_no_retry(),
        require_full_coverage=False,
        **tls,
    )
    return cluster_with_hiredis(cluster)


def _sentinel(parts: _Parts, limit: float, tls: _Tls) -> Redis:
    if not parts.path:
        raise ValueError(parts.path)
    name, *database = parts.path
    options = {"socket_timeout": limit, "socket_connect_timeout": limit, **tls}
    sentinel = Sentinel(parts.hosts, sentinel_kwargs=options)
    master: Redis = sentinel.master_for(
        name,
        db=int(database[0]) if database else 0,
        username=parts.username,
        password=parts.password,
        socket_timeout=limit,
        socket_connect_timeout=limit,
        retry=_no_retry(),
        **tls,
    )
    return with_hiredis(master)


def _no_retry() -> Retry:
    return Retry(NoBackoff(), 0)
