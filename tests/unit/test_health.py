"""What `/readyz` says: ok, degraded, not ready."""

from collections.abc import Mapping

import pytest
from aiohttp.test_utils import TestClient, TestServer

from shared.health import Degraded, application


@pytest.mark.parametrize(
    ("needs", "status", "text"),
    [
        ({"redis": None, "consumer": None}, 200, "redis: ok\nconsumer: ok\n"),
        ({"rabbitmq": Degraded("away")}, 200, "rabbitmq: degraded: away\n"),
        (
            {"rabbitmq": Degraded("away"), "spool": "full"},
            503,
            "rabbitmq: degraded: away\nspool: not ready: full\n",
        ),
        ({"redis": ""}, 503, "redis: not ready: \n"),
    ],
)
async def test_readyz(needs: Mapping[str, str | None], status: int, text: str) -> None:
    async with TestClient(TestServer(application(lambda: needs))) as client:
        answer = await client.get("/readyz")
        assert (answer.status, await answer.text()) == (status, text)
