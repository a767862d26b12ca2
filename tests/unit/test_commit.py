"""A batch goes to RabbitMQ, else to the spool, else it is refused; the drain empties the spool."""

import asyncio
import contextlib
import logging
import math
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ingest.breaker import LONGEST_PAUSE, Breaker
from ingest.commit import Committer
from ingest.probe import CHECK_INTERVAL, probe
from ingest.publisher import PUBLISH_LIMIT, Publisher
from ingest.spool.drain import drain
from ingest.spool.spool import Spool
from shared.errors import (
    BodyTooLargeError,
    PostbacksError,
    PublishOutcomeUnknownError,
    PublishRejectedError,
    SpoolUnavailableError,
    UnpublishableError,
)
from shared.postback import envelope
from shared.postback.envelope import Arrival
from shared.rate_limited_log import RateLimitedLog
from shared.settings.settings import Settings

BATCH = [Arrival(1, "acme", "text/xml", b"<postback/>"), Arrival(2, "acme", "", b"{}")]
FAILURES = [PublishRejectedError("refused"), PublishOutcomeUnknownError("no answer")]


class Scripted(Publisher):
    """A publisher without a broker: it records each publish, and fails as the test wants.

    Attributes:
        published: the encoded batches.
        failure: raised by each publish, if not None.
        limit: bytes of the largest batch that it accepts.
    """

    def __init__(self) -> None:
        super().__init__(Settings())
        self.published: list[bytes] = []
        self.failure: PostbacksError | None = None
        self.limit = math.inf

    async def publish(self, encoded: bytes, batch_id: str) -> None:  # noqa: ARG002
        await asyncio.sleep(0)
        self.published.append(encoded)
        if len(encoded) > self.limit:
            self.largest = self.limit
            raise UnpublishableError("too large")
        if self.failure is not None:
            raise self.failure


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def publisher() -> Scripted:
    return Scripted()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock)


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    spool = Spool(tmp_path / "spool.db", 2**20)
    yield spool
    await spool.aclose()


async def spooled(spool: Spool) -> list[list[Arrival]]:
    return [envelope.decode(each.encoded) for each in await spool.oldest(100)]


async def test_a_confirmed_batch_is_not_spooled(
    publisher: Scripted, breaker: Breaker, spool: Spool
) -> None:
    await Committer(publisher, breaker, spool).commit(BATCH)
    assert [envelope.decode(each) for each in publisher.published] == [BATCH]
    assert await spooled(spool) == []
    assert breaker.closed


@pytest.mark.parametrize("failure", FAILURES, ids=["rejected", "outcome unknown"])
async def test_a_batch_without_a_confirm_is_spooled_unchanged(
    failure: PostbacksError, publisher: Scripted, breaker: Breaker, spool: Spool
) -> None:
    publisher.failure = failure
    await Committer(publisher, breaker, spool).commit(BATCH)
    assert await spooled(spool) == [BATCH]
    assert spool.depth.postbacks == len(BATCH)
    assert breaker.reason == str(failure)


async def test_after_a_failure_batches_go_directly_to_the_spool(
    publisher: Scripted, breaker: Breaker, spool: Spool, clock: Clock
) -> None:
    committer = Committer(publisher, breaker, spool)
    publisher.failure = FAILURES[0]
    for _ in range(3):
        await committer.commit(BATCH)
        clock.now += LONGEST_PAUSE  # even when a probe is due, a new batch is not the probe
    assert len(publisher.published) == 1
    assert len(await spooled(spool)) == 3


async def test_after_a_successful_probe_batches_go_to_rabbitmq_again(
    publisher: Scripted, breaker: Breaker, spool: Spool
) -> None:
    committer = Committer(publisher, breaker, spool)
    publisher.failure = FAILURES[0]
    await committer.commit(BATCH)
    publisher.failure = None
    assert await committer.try_publish(b"probe", "probe")
    await committer.commit(BATCH)
    assert len(publisher.published) == 3
    assert len(await spooled(spool)) == 1


@pytest.mark.parametrize("failure", FAILURES, ids=["rejected", "outcome unknown"])
async def test_without_a_spool_a_batch_without_a_confirm_is_refused(
    failure: PostbacksError, publisher: Scripted, breaker: Breaker
) -> None:
    publisher.failure = failure
    with pytest.raises(SpoolUnavailableError):
        await Committer(publisher, breaker, None).commit(BATCH)


@pytest.mark.parametrize("spool_is", ["off", "unreadable", "readable"])
async def test_without_a_readable_spool_the_next_postback_is_the_probe(
    spool_is: str,
    publisher: Scripted,
    breaker: Breaker,
    clock: Clock,
    tmp_path: Path,
) -> None:
    committer = Committer(publisher, breaker, None)
    publisher.failure = FAILURES[0]
    spool = None if spool_is == "off" else Spool(tmp_path / "spool.db", 2**20)
    if spool is not None and spool_is == "unreadable":
        with contextlib.closing(
            sqlite3.connect(tmp_path / "spool.db", isolation_level=None)
        ) as other:
            other.execute("DROP TABLE spool")
        with pytest.raises(SpoolUnavailableError):
            await spool.oldest(1)
    for _ in range(3):
        with pytest.raises(SpoolUnavailableError):
            await committer.commit(BATCH)
    assert len(publisher.published) == 1
    probing = asyncio.create_task(probe(breaker, publisher, spool))
    clock.now += LONGEST_PAUSE
    await asyncio.sleep(2 * CHECK_INTERVAL)
    assert not breaker.closed  # RabbitMQ is down
    publisher.problem = None
    await asyncio.sleep(2 * CHECK_INTERVAL)
    assert breaker.closed == (spool_is != "readable")
    probing.cancel()
    await asyncio.wait([probing])
    if spool is not None:
        await spool.aclose()


async def test_a_full_spool_refuses_a_batch(
    publisher: Scripted, breaker: Breaker, spool: Spool
) -> None:
    publisher.failure = FAILURES[0]
    large = [Arrival(1, "acme", "", b"x" * 2**20)]
    with pytest.raises(SpoolUnavailableError):
        await Committer(publisher, breaker, spool).commit(large)
    assert await spooled(spool) == []


async def test_the_spool_is_drained_oldest_first_after_a_successful_probe(
    publisher: Scripted, breaker: Breaker, spool: Spool, clock: Clock
) -> None:
    batches = [b"%d" % number for number in range(40)]
    for batch in batches:
        await spool.add(batch, 1)
    breaker.failed("gone")
    draining = asyncio.create_task(drain(spool, Committer(publisher, breaker, spool), breaker))
    async with asyncio.timeout(10):
        await asyncio.sleep(0.05)
        assert publisher.published == []  # no probe is due yet
        clock.now += LONGEST_PAUSE
        while spool.depth.batches:
            await asyncio.sleep(0.01)
    draining.cancel()
    await asyncio.wait([draining])
    assert publisher.published == batches
    assert breaker.closed
    assert await spool.oldest(1) == []


async def test_a_failing_removal_is_logged_once_and_no_batch_is_published_again(
    publisher: Scripted,
    breaker: Breaker,
    spool: Spool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("ingest.spool.drain.RETRY_PAUSE", 0.0)
    monkeypatch.setattr(
        "ingest.spool.drain._limited_log", RateLimitedLog(logging.getLogger("ingest.spool.drain"))
    )
    tries = 0
    tried_often = asyncio.Event()

    async def remove(_ids: list[int]) -> None:
        nonlocal tries
        tries += 1
        if tries == 20:
            tried_often.set()
        raise SpoolUnavailableError("the disk is broken")

    monkeypatch.setattr(spool, "remove", remove)
    await spool.add(b"batch", 1)
    draining = asyncio.create_task(drain(spool, Committer(publisher, breaker, spool), breaker))
    async with asyncio.timeout(10):
        await tried_often.wait()
    draining.cancel()
    await asyncio.wait([draining])
    assert publisher.published == [b"batch"]
    assert [record.message for record in caplog.records] == ["the disk is broken"]


class SlowLink(Scripted):
    """A slow connection: batches reach RabbitMQ one after the other, each after some time."""

    seconds = 0.3

    def __init__(self) -> None:
        super().__init__()
        self._link = asyncio.Lock()

    async def publish(self, encoded: bytes, batch_id: str) -> None:
        try:
            async with asyncio.timeout(PUBLISH_LIMIT), self._link:
                await asyncio.sleep(self.seconds)
        except TimeoutError as error:
            self.failure = PublishOutcomeUnknownError("no confirm")
            raise self.failure from error
        await super().publish(encoded, batch_id)


async def test_the_drain_publishes_no_more_batches_together_than_are_confirmed_in_time(
    breaker: Breaker, spool: Spool
) -> None:
    """Otherwise most batches are published in vain, and the breaker opens again and again."""
    batches = [b"%d" % number for number in range(12)]
    assert len(batches) * SlowLink.seconds > PUBLISH_LIMIT
    for batch in batches:
        await spool.add(batch, 1)
    publisher = SlowLink()
    draining = asyncio.create_task(drain(spool, Committer(publisher, breaker, spool), breaker))
    async with asyncio.timeout(30):
        while spool.depth.batches and publisher.failure is None:
            await asyncio.sleep(0.01)
    draining.cancel()
    await asyncio.wait([draining])
    assert publisher.failure is None
    assert publisher.published == batches


async def test_while_rabbitmq_is_down_the_drain_probes_with_one_batch_and_removes_none(
    publisher: Scripted, breaker: Breaker, spool: Spool, clock: Clock
) -> None:
    for number in range(5):
        await spool.add(b"%d" % number, 1)
    publisher.failure = FAILURES[1]
    breaker.failed("gone")
    clock.now += LONGEST_PAUSE
    draining = asyncio.create_task(drain(spool, Committer(publisher, breaker, spool), breaker))
    async with asyncio.timeout(10):
        while not publisher.published:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
    draining.cancel()
    await asyncio.wait([draining])
    assert publisher.published == [b"0"]
    assert len(await spool.oldest(10)) == 5


@pytest.mark.parametrize("breaker_open", [False, True])
async def test_a_batch_too_large_for_rabbitmq_is_split_and_a_large_postback_is_set_aside(
    publisher: Scripted,
    breaker: Breaker,
    spool: Spool,
    clock: Clock,
    breaker_open: bool,  # noqa: FBT001
) -> None:
    """It is published only once, it does not close the breaker, and no postback is lost."""
    batch = [Arrival(at, "acme", "", b"x" * 400) for at in range(5)]
    batch.insert(2, Arrival(9, "acme", "", b"y" * 3000))
    publisher.limit = 1000
    committer = Committer(publisher, breaker, spool)
    if breaker_open:
        breaker.failed("gone")
    await committer.commit(batch)  # on disk, so it may be answered 200
    assert breaker.closed != breaker_open
    draining = asyncio.create_task(drain(spool, committer, breaker))
    async with asyncio.timeout(10):
        while spool.depth.batches or not breaker.closed:
            clock.now += LONGEST_PAUSE
            await asyncio.sleep(0.01)
    draining.cancel()
    await asyncio.wait([draining])
    too_large = [each for each in publisher.published if len(each) > publisher.limit]
    assert len(too_large) == 1  # the first try finds the limit
    accepted = [envelope.decode(each) for each in publisher.published if each not in too_large]
    assert sorted(arrival.received_at for each in accepted for arrival in each) == [0, 1, 2, 3, 4]
    assert spool.set_aside_postbacks == 1


async def test_a_large_entry_that_is_not_a_batch_is_set_aside_whole(
    publisher: Scripted, breaker: Breaker, spool: Spool
) -> None:
    publisher.limit = publisher.largest = 100
    await spool.add(b"\xff" * 101, 7)
    draining = asyncio.create_task(drain(spool, Committer(publisher, breaker, spool), breaker))
    async with asyncio.timeout(10):
        while spool.set_aside_postbacks != 7:
            await asyncio.sleep(0.01)
    draining.cancel()
    await asyncio.wait([draining])
    assert publisher.published == []


async def test_without_a_spool_a_postback_too_large_for_rabbitmq_is_refused_as_too_large(
    publisher: Scripted, breaker: Breaker
) -> None:
    publisher.limit = 10
    with pytest.raises(SpoolUnavailableError):
        await Committer(publisher, breaker, None).commit(BATCH)
    with pytest.raises(BodyTooLargeError):
        await Committer(publisher, breaker, None).commit(BATCH[:1])
    assert breaker.closed
