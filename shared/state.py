"""Which Redis the state is in: one server, a cluster, or whatever Sentinel says is the master.

    redis://host:6379/0                               one server (rediss: with TLS)
    redis+cluster://host:6379,host:6379               any nodes of a cluster
    redis+sentinel://host:26379,host:26379/mymaster/0 Sentinels, the master's name, the database

User and password go before the hosts, once: `redis+cluster://user:password@host:6379,host:6379`.
"""

from typing import Final, NamedTuple
from urllib.parse import unquote

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff

from shared.errors import SettingsError

State = Redis | RedisCluster
"""A client of whatever the state is in; the commands that we use are the same."""

CLUSTER: Final = "redis+cluster://"
SENTINEL: Final = "redis+sentinel://"


def client(url: str, limit: float) -> State:
    """A client for `MMS_REDIS_URL`. It connects when it must and tries nothing twice by itself.

    Args:
        limit: seconds for a connection and for an answer.

    Raises:
        SettingsError: the URL cannot be read.
    """
    try:
        if url.startswith(CLUSTER):
            return _cluster(_parsed(url.removeprefix(CLUSTER)), limit)
        if url.startswith(SENTINEL):
            return _sentinel(_parsed(url.removeprefix(SENTINEL)), limit)
        return Redis.from_url(
            url, socket_timeout=limit, socket_connect_timeout=limit, retry=_never()
        )
    except ValueError as error:
        raise SettingsError(f"MMS_REDIS_URL cannot be read: {error}") from None


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
        # Not repeated: it is part of a password where that has a / or an @ in it.
        raise ValueError("a part of it is no host:port; in a password write / as %2F, @ as %40")
    return host, int(port)


def _cluster(parsed: _Parsed, limit: float) -> RedisCluster:
    return RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in parsed.hosts],
        username=parsed.username,
        password=parsed.password,
        socket_timeout=limit,
        socket_connect_timeout=limit,
        retry=_never(),
        require_full_coverage=False,
    )


def _sentinel(parsed: _Parsed, limit: float) -> Redis:
    if not parsed.path:
        raise ValueError("a Sentinel's URL ends with /<name of the master>/<database>")
    name, *database = parsed.path
    sentinel = Sentinel(parsed.hosts, socket_timeout=limit, socket_connect_timeout=limit)
    master: Redis = sentinel.master_for(
        name,
        db=int(database[0]) if database else 0,
        username=parsed.username,
        password=parsed.password,
        socket_timeout=limit,
        socket_connect_timeout=limit,
        retry=_never(),
    )
    return master


def _never() -> Retry:
    return Retry(NoBackoff(), 0)
