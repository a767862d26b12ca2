"""The server's name and version, and whether we support it.

Every user may send `HELLO` without arguments, whatever their permissions; it changes nothing.
"""

import re
from collections.abc import Sequence
from typing import Final

from redis.asyncio.cluster import RedisCluster

from shared.errors import UnsupportedRedisError
from shared.redis.client import RedisClient
from shared.redis.errors import redis_errors

OLDEST: Final = {"redis": (7,), "valkey": (8,)}
"""The oldest version of each server that all tests pass with. A Valkey with
`extended-redis-compatibility` calls itself Redis 7.2."""

NEEDED: Final = ", or ".join(
    f"{name.capitalize()} {'.'.join(map(str, version))} or newer"
    for name, version in OLDEST.items()
)
"""`OLDEST`, for people."""


async def check_version(redis: RedisClient) -> str:
    """Return the server's name and version, for example `redis 7.0.15`, if we support it.

    Raises:
        UnsupportedRedisError: it is too old; names its version and the one that is needed.
        StateUnavailableError: Redis is unavailable.
    """
    with redis_errors():
        if isinstance(redis, RedisCluster):
            await redis.initialize()
            node = redis.get_random_node()
            reply = await redis.execute_command("HELLO", target_nodes=node)
        else:
            reply = await redis.execute_command("HELLO")
    name, version = read_hello(reply)
    if not supported(name, version):
        raise UnsupportedRedisError(
            f"MMS_REDIS_URL leads to {name} {version}; mms-postbacks needs {NEEDED}: upgrade the"
            " server"
        )
    return f"{name} {version}"


def supported(name: str, version: str) -> bool:
    """Whether a server of this name and version is new enough."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    return numbers >= OLDEST.get(name, OLDEST["redis"])


def read_hello(reply: object) -> tuple[str, str]:
    """The server's name in lower case and its version, from the reply to `HELLO`."""
    properties: dict[object, object] = {}
    if isinstance(reply, dict):
        properties = reply
    elif isinstance(reply, Sequence):
        properties = dict(zip(reply[::2], reply[1::2], strict=False))
    texts = {_text(key): _text(value) for key, value in properties.items()}
    return texts.get("server", "redis").lower(), texts.get("version", "0")


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
