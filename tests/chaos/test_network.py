"""The network between a process and a server resets connections, stalls, or is slow."""

import asyncio
from collections.abc import Callable

import pytest

from tests.support.proxy import Proxy, proxied
from tests.support.site import Row, Site

Holds = Callable[[Row], None]


async def resets(proxy: Proxy) -> None:
    for _ in range(10):
        proxy.reset()
        await asyncio.sleep(0.8)


async def stalls(proxy: Proxy) -> None:
    proxy.stall()
    await asyncio.sleep(15)
    proxy.reset()


async def slows(proxy: Proxy) -> None:
    proxy.slow(0.3)
    await asyncio.sleep(10)


PLACES = ["ingress and RabbitMQ", "worker and RabbitMQ", "worker and Redis"]
FAULTS = {
    "resets 10 times": resets,
    "stalls for 15 s": stalls,
    "delays everything by 0.3 s": slows,
}


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("between", PLACES)
async def test_network(site: Site, holds: Holds, between: str, fault: str) -> None:
    server = site.redis if between.endswith("Redis") else site.rabbit
    async with proxied(server.port) as proxy:
        detour = server.url.replace(str(server.port), str(proxy.port))
        setting = "redis_url" if server is site.redis else "amqp_url"
        detours = {setting: detour}
        await site.ingest(**(detours if between.startswith("ingress") else {}))
        await site.worker(**(detours if between.startswith("worker") else {}))
        async with site.load() as load:
            with load.fault():
                await FAULTS[fault](proxy)
            proxy.heal()
        holds(await load.verdict(f"between {between} the network {fault}"))
        await site.stop()
