"""Redis's protocol, RESP, written and read by hiredis.

redis-py's own asyncio connections write RESP in Python, piece by piece, and set a timer for each
reply. A window is one pipeline of hundreds of small commands, so here hiredis writes a whole
pipeline, and only waiting for the socket has a time limit: replies that came together are read
without one.
"""

import asyncio
import math
from collections.abc import Iterable
from typing import Final

import hiredis
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import AbstractConnection, Connection, DefaultParser, SSLConnection
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection
from redis.typing import EncodableT


class _Parser(DefaultParser):  # type: ignore[misc, valid-type]  # a union, as mypy sees it
    """Reads replies; gives the socket `socket_timeout` seconds whenever it has to be waited for."""

    def on_connect(self, connection: AbstractConnection) -> None:
        super().on_connect(connection)
        self._limit = connection.socket_timeout

    async def read_from_socket(self) -> bool:
        try:
            async with asyncio.timeout(self._limit):
                return bool(await super().read_from_socket())
        except TimeoutError:
            raise exceptions.TimeoutError(f"no answer within {self._limit:g} s") from None


class _Resp(AbstractConnection):
    """What is done otherwise than by redis-py, on any kind of connection."""

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
        """As redis-py's, but where no `timeout` is given the parser has one."""
        return await super().read_response(
            disable_decoding,
            math.inf if timeout is None else timeout,
            disconnect_on_error=disconnect_on_error,
            push_request=push_request,
        )


class _Plain(_Resp, Connection):
    pass


class _Tls(_Resp, SSLConnection):
    pass


class _Master(_Resp, SentinelManagedConnection):  # type: ignore[misc]  # types what it passes on
    pass


class _MasterTls(_Resp, SentinelManagedSSLConnection):  # type: ignore[misc]  # so too
    pass


_OURS: Final[dict[object, type[Connection]]] = {
    Connection: _Plain,
    SSLConnection: _Tls,
    SentinelManagedConnection: _Master,
    SentinelManagedSSLConnection: _MasterTls,
}


def by_hiredis(client: Redis) -> Redis:
    """The same client, which has not connected yet, with connections of ours."""
    pool = client.connection_pool
    pool.connection_class = _OURS[pool.connection_class]
    return client


def cluster_by_hiredis(client: RedisCluster) -> RedisCluster:
    """The same for a cluster's client."""
    options = client.get_connection_kwargs()
    options["connection_class"] = _OURS[options["connection_class"]]
    return client
