"""Which Redis the state is in: one server, a cluster, or whatever Sentinel says is the master.

    redis://host:6379/0                               one server
    redis+cluster://host:6379,host:6379               any nodes of a cluster
    redis+sentinel://host:26379,host:26379/mymaster/0 Sentinels, the master's name, the database

With `rediss` for `redis` they are spoken to with TLS, and their certificates verified.
User and password go before the hosts, once: `redis+cluster://user:password@host:6379,host:6379`.
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
from shared.redis.hiredis import by_hiredis, cluster_by_hiredis

State = Redis | RedisCluster
"""A client of whatever the state is in; the commands that we use are the same."""

_FORM: Final = re.compile(r"redis(s?)(?:\+(cluster|sentinel))?://(.*)", re.DOTALL)
_UNVERIFIED: Final = ("ssl_cert_reqs", "ssl_check_hostname")


def client(url: str, limit: float, ca: str = "") -> State:
    """A client for `MMS_REDIS_URL`. It connects when it must and tries nothing twice by itself.

    Args:
        limit: seconds for a connection and for an answer.

        ca: file of the authorities that sign servers' certificates; empty: the system's.

    Raises:
        SettingsError: the URL or the file cannot be read; repeats nothing of the URL.
    """
    form = _FORM.fullmatch(url)
    if form is None:
        raise SettingsError(f"MMS_REDIS_URL cannot be read: {_WANTED}")
    if any(option in url for option in _UNVERIFIED):
        raise SettingsError(
            "MMS_REDIS_URL has options of verification, but certificates are always verified;"
            " name their authority with MMS_TLS_CA"
        )
    secure, kind, rest = form.groups()
    tls = _Tls(ssl=True, ssl_ca_certs=ca or None) if secure else _Tls()
    try:
        if kind == "cluster":
            return _cluster(_parsed(rest), limit, tls)
        if kind == "sentinel":
            return _sentinel(_parsed(rest), limit, tls)
        int(
            urlsplit(url).path.removeprefix("/") or 0
        )  # redis-py would take 0 for what is no number
        if secure and ca:
            url += f"{'&' if '?' in url else '?'}ssl_ca_certs={quote(ca)}"
        return by_hiredis(
            Redis.from_url(url, socket_timeout=limit, socket_connect_timeout=limit, retry=_never())
        )
    except ValueError:  # its text may hold what it took for a port
        raise SettingsError(f"MMS_REDIS_URL cannot be read: {_WANTED}") from None


_WANTED: Final = (
    "it is none of redis://, redis+cluster:// and redis+sentinel://, a part of it is no host:port,"
    " or its database is no number (a Sentinel's ends with /<name of the master>/<database>);"
    " in a password write / as %2F, # as %23, ? as %3F, @ as %40"
)


class _Tls(TypedDict, total=False):
    """How clients are told of TLS."""

    ssl: bool
    ssl_ca_certs: str | None


async def close(state: State) -> None:
    """Close all connections, those to Sentinels too. The client may be used again all the same."""
    await state.aclose()
    if isinstance(state, Redis) and isinstance(state.connection_pool, SentinelConnectionPool):
        for sentinel in state.connection_pool.sentinel_manager.sentinels:
            await sentinel.aclose()


class _Parsed(NamedTuple):
    hosts: list[tuple[str, int]]
    username: str | None
    password: str | None
    path: list[str]


def _parsed(rest: str) -> _Parsed:
    location, _, path = rest.partition("/")
    credentials, _, hosts = location.rpartition("@")
    username, _, password = credentials.partition(":")
    return _Parsed(
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


def _cluster(parsed: _Parsed, limit: float, tls: _Tls) -> RedisCluster:
    cluster = RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in parsed.hosts],
        username=parsed.username,
        password=parsed.password,
        socket_timeout=limit,
        socket_connect_timeout=limit,
        retry=_never(),
        require_full_coverage=False,
        **tls,
    )
    return cluster_by_hiredis(cluster)


def _sentinel(parsed: _Parsed, limit: float, tls: _Tls) -> Redis:
    if not parsed.path:
        raise ValueError(parsed.path)
    name, *database = parsed.path
    asked = {"socket_timeout": limit, "socket_connect_timeout": limit, **tls}
    sentinel = Sentinel(parsed.hosts, sentinel_kwargs=asked)
    master: Redis = sentinel.master_for(
        name,
        db=int(database[0]) if database else 0,
        username=parsed.username,
        password=parsed.password,
        socket_timeout=limit,
        socket_connect_timeout=limit,
        retry=_never(),
        **tls,
    )
    return by_hiredis(master)


def _never() -> Retry:
    return Retry(NoBackoff(), 0)
