"""The metrics of the spool add up over processes that share it."""

import asyncio
from pathlib import Path

from prometheus_client import REGISTRY

from ingest.breaker import Breaker
from ingest.commit import Committer
from ingest.publisher import Publisher
from ingest.spool.drain import drain
from ingest.spool.spool import Spool
from shared.errors import PublishRejectedError
from shared.postback.envelope import Arrival
from shared.settings.settings import Settings

BATCH = [Arrival(1, "acme", "", b"{}"), Arrival(2, "acme", "", b"{}")]


class Scripted(Publisher):
    """A publisher without a broker."""

    accepts = False

    async def publish(self, encoded: bytes, batch_id: str) -> None:  # noqa: ARG002
        if not self.accepts:
            raise PublishRejectedError


def counts() -> dict[str, float]:
    names = ("published", "spooled", "drained")
    return {name: REGISTRY.get_sample_value(f"mms_ingest_{name}_total") or 0.0 for name in names}


async def test_postbacks_are_counted_into_the_spool_and_out_of_it(tmp_path: Path) -> None:
    before = counts()
    publisher, breaker = Scripted(Settings()), Breaker()
    spool, other = (Spool(tmp_path / "spool.db", 2**20) for _ in range(2))
    committer = Committer(publisher, breaker, spool)
    for _ in range(3):
        await committer.commit(BATCH)
    assert counts() == before | {"spooled": before["spooled"] + 6}
    publisher.accepts = True
    breaker.succeeded()
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        draining = tasks.create_task(drain(spool, committer, breaker))
        while (await other.measure()).postbacks:
            await asyncio.sleep(0.01)
        while not spool.drained_here or counts()["drained"] < before["drained"] + 6:
            await asyncio.sleep(0.01)
        assert not other.lock_for_draining()
        draining.cancel()
    assert counts() == {name: value + 6 for name, value in before.items()}
    assert [spool.drained_here, other.drained_here] == [True, False]
    await spool.aclose()
    await other.aclose()
