"""Connections whose protocol, RESP, is written and read by hiredis.

redis-py's asyncio connections write RESP in Python, piece by piece, and set a timer for each reply.
A window is one pipeline of hundreds of small commands. So here hiredis writes a whole pipeline, and
a timer runs only while the socket is awaited: replies that arrived together are read without one.

redis-py has no setting for this, so the classes below override parts of its connection and parser
that its documentation does not mention. Tested with the versions of redis-py in `TESTED`. With
another version a client keeps redis-py's own connections: slower, never wrong.
"""

import asyncio
import logging
import math
from collections.abc import Iterable
from typing import Final

import hiredis
import redis
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import AbstractConnection, Connection, DefaultParser, SSLConnection
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection
from redis.typing import EncodableT

TESTED: Final = frozenset({"8.1.0"})
"""Versions of redis-py with which all tests pass."""

PRIVATE: Final = {
    "redis.asyncio.connection.AbstractConnection": (
        "pack_command",
        "pack_commands",
        "read_response",
        "set_parser",
        "socket_timeout",
    ),
    "redis.asyncio.connection.DefaultParser": ("on_connect", "read_from_socket"),
    "redis.asyncio.ConnectionPool": ("connection_class",),
    "redis.asyncio.RedisCluster": ("get_connection_kwargs",),
}
"""Names of redis-py that are not part of its public interface, by class."""

log: Final = logging.getLogger(__name__)


class _Parser(DefaultParser):  # type: ignore[misc, valid-type]  # a union, as mypy sees it
    """Reads replies; waits at most `socket_timeout` seconds each time it needs the socket."""

    def on_connect(self, connection: AbstractConnection) -> None:
        super().on_connect(connection)
        self._limit = connection.socket_timeout

    async def read_from_socket(self) -> bool:
        try:
            async with asyncio.timeout(self._limit):
                return bool(await super().read_from_socket())
        except TimeoutError:
            raise exceptions.TimeoutError(f"no answer within {self._limit:g} s") from None


class _HiredisConnection(AbstractConnection):
    """What every kind of connection does differently from redis-py."""

    def set_parser(self, _: object) -> None:
        super().set_parser(_Parser)

    def pack_command(self, *args: EncodableT) -> list[bytes]:
        command = args[0]
        if isinstance(command, str) and " " in command:  # SCRIPT LOAD is two words to Redis
            args = (*command.split(), *args[1:])
        return [hiredis.pack_command(args)]  # type: ignore[arg-type]  # its stub says one argument

    def pack_commands(self, commands: Iterable[Iterable[EncodableT]]) -> list[bytes]:
        return [b"".join([packed for each in commands for packed in self.pack_command(*each)])]

    async def read_response(
        self,
        disable_decoding: bool = False,  # noqa: FBT001, FBT002 (the signature is redis-py's)
        timeout: float | None = None,  # noqa: ASYNC109 (also)
        *,
        disconnect_on_error: bool = True,
        push_request: bool | None = False,
    ) -> object:
        """As redis-py's, but without a `timeout` the parser's limit is the only one."""
        return await super().read_response(
            disable_decoding,
            math.inf if timeout is None else timeout,
            disconnect_on_error=disconnect_on_error,
            push_request=push_request,
        )


class _Plain(_HiredisConnection, Connection):
    pass


class _Tls(_HiredisConnection, SSLConnection):
    pass


class _Master(_HiredisConnection, SentinelManagedConnection):  # type: ignore[misc]  # bases differ
    pass


class _MasterTls(_HiredisConnection, SentinelManagedSSLConnection):  # type: ignore[misc]  # same
    pass


_OURS: Final[dict[object, type[Connection]]] = {
    Connection: _Plain,
    SSLConnection: _Tls,
    SentinelManagedConnection: _Master,
    SentinelManagedSSLConnection: _MasterTls,
}


def with_hiredis(client: Redis) -> Redis:
    """The same client, which has not connected yet, with our connections."""
    if _is_tested():
        pool = client.connection_pool
        pool.connection_class = _OURS[pool.connection_class]
    return client


def cluster_with_hiredis(client: RedisCluster) -> RedisCluster:
    """The same for a cluster's client."""
    if _is_tested():
        options = client.get_connection_kwargs()
        options["connection_class"] = _OURS[options["connection_class"]]
    return client


def _is_tested() -> bool:
    if redis.__version__ in TESTED:
        return True
    log.warning(
        "redis-py %s was not tested with connections of hiredis, which stay off: fewer postbacks a"
        " second; tested are %s",
        redis.__version__,
        ", ".join(sorted(TESTED)),
    )
    return False
