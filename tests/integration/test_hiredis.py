"""Redis's replies: many at once, in pieces, errors among them, and none at all."""

import asyncio
import time

import pytest
from redis import exceptions

from deploy.local.servers import Redis
from shared.redis.client import RedisClient, client
from shared.settings.settings import Settings

LIMIT = 0.5


@pytest.fixture
def state(settings: Settings) -> RedisClient:
    return client(settings.redis_url, LIMIT)


async def test_errors_among_replies_that_arrive_in_pieces(state: RedisClient) -> None:
    large = b"x" * 300_000
    async with state.pipeline(transaction=False) as pipeline:
        for number in range(500):
            pipeline.set(f"key-{number}", large if number % 100 == 0 else number)
            pipeline.get(f"key-{number}")
            pipeline.execute_command("INCR", f"key-{number}")
        replies = await pipeline.execute(raise_on_error=False)
    assert len(replies) == 1500
    for number in range(500):
        assert replies[3 * number] is True
        if number % 100:
            assert replies[3 * number + 1 : 3 * number + 3] == [b"%d" % number, number + 1]
        else:
            assert replies[3 * number + 1] == large
            assert isinstance(replies[3 * number + 2], exceptions.ResponseError)
    await state.aclose()


async def test_a_redis_that_does_not_reply(state: RedisClient, redis_server: Redis) -> None:
    await state.set("key", 1)
    redis_server.pause()
    began = time.monotonic()
    for _ in range(2):  # on a connection that is there, and on one that is new
        with pytest.raises(exceptions.TimeoutError):
            await state.get("key")
    assert LIMIT <= time.monotonic() - began < 4 * LIMIT
    redis_server.resume()
    assert await state.get("key") == b"1"
    await state.aclose()


async def test_a_reply_to_a_cancelled_command_is_not_given_to_the_next(
    state: RedisClient, redis_server: Redis
) -> None:
    await state.set("key", 1)
    redis_server.pause()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await state.get("key")
    redis_server.resume()
    assert await state.exists("key", "key", "key") == 3
    await state.aclose()
