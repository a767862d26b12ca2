"""The responses of `/readyz`, and the errors of addresses that cannot be used."""

from collections.abc import Mapping

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from shared.errors import SettingsError
from shared.process import listen
from shared.process.admin_server import Degraded, application


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


@pytest.mark.parametrize("host", ["192.0.2.1", "256.1.1.1"])
async def test_the_error_of_an_address_of_another_machine_names_the_host_setting(host: str) -> None:
    with pytest.raises(SettingsError, match="change MMS_INGEST_HOST"):
        listen.check_free(host, 18080, "MMS_INGEST_PORT")
    runner = web.AppRunner(web.Application())
    try:
        with pytest.raises(SettingsError, match="change MMS_INGEST_HOST"):
            await listen.on_port(runner, host, 18080, "MMS_INGEST_PORT")
    finally:
        await runner.cleanup()
