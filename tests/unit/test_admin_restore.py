"""The events that a rebuild publishes, also when Redis fails during a merge."""

import asyncio
import json
from collections.abc import Sequence

import pytest

from shared.errors import StateUnavailableError
from shared.postback import envelope
from shared.postback.envelope import Arrival
from shared.settings.settings import Settings
from tests.support.model_store import ModelStore
from workers.admin.restore import EventPublisher, Restorer, Summary
from workers.outbox import Outbox
from workers.verdicts import Merged, Received, Unmergeable

AT = 1_795_486_200_000_000


class LosingStore(ModelStore):
    """Merges a half and loses the connection, some times."""

    def __init__(self, lost: int) -> None:
        super().__init__()
        self.lost = lost

    async def merge(self, window: Sequence[Received]) -> list[Merged | Unmergeable]:
        merged = await super().merge(window[: len(window) // 2] if self.lost else window)
        if self.lost:
            self.lost -= 1
            raise StateUnavailableError("the connection was reset")
        return merged


class Recorder(EventPublisher):
    """Publishes to a list."""

    def __init__(self) -> None:
        super().__init__(Settings())
        self.published: list[Outbox] = []

    async def publish(self, outbox: Outbox) -> None:
        self.published.append(outbox)


def batch(count: int) -> bytes:
    return envelope.encode(
        [
            Arrival(
                AT + number,
                "acme",
                "",
                json.dumps(
                    {"origin": "MMS_MT", "code": "N103", "tracking-id": f"T-{number}"}
                ).encode(),
            )
            for number in range(count)
        ]
    )


async def rebuild(store: ModelStore, body: bytes, earliest: int = 0) -> list[str]:
    """The subjects of the events that a rebuild of one batch publishes."""
    publisher = Recorder()
    restorer = Restorer(store, Summary(), publisher, earliest)
    await restorer.take(body, 0)
    await restorer.flush()
    return [event.subject for outbox in publisher.published for event in outbox.events]


@pytest.mark.parametrize("lost", [0, 1, 2])
async def test_every_change_is_published_when_redis_failed_after_the_merge(
    lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once(*_: object, **__: object) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr("workers.merge.backoff", at_once)
    subjects = await rebuild(LosingStore(lost), batch(20))
    assert subjects == [f"T-{number}" for number in range(20)]


async def test_known_postbacks_are_not_published_again() -> None:
    store = LosingStore(0)
    assert len(await rebuild(store, batch(20))) == 20
    assert await rebuild(store, batch(20)) == []


async def test_old_postbacks_are_merged_and_not_published() -> None:
    store = LosingStore(0)
    assert await rebuild(store, batch(20), AT + 15) == [f"T-{number}" for number in range(15, 20)]
    assert len(store.models) == 20


async def test_postbacks_of_other_origins_are_published_again() -> None:
    bodies = [b'{"origin":"SMS_MO","code":"N401","tracking-id":"T-%d"}' % n for n in range(20)]
    arrivals = [Arrival(AT + number, "acme", "", body) for number, body in enumerate(bodies)]
    publisher, summary = Recorder(), Summary()
    restorer = Restorer(LosingStore(0), summary, publisher, AT + 15)
    await restorer.take(envelope.encode(arrivals), 0)
    await restorer.flush()
    (outbox,) = publisher.published
    assert [event.subject for event in outbox.passthrough] == [f"T-{n}" for n in range(15, 20)]
    assert (summary.passthrough, summary.events) == (20, 5)
