"""The law of `sequence`: the event with the highest one has the right outcome in spite of faults.

Workers take batches in any order and die between the merge and the publish. The provider resends.
Records expire, Redis is emptied, the archive is replayed, in whole or in part. The subscriber
keeps, for each source, subject and track, the event with the highest `sequence`. In the end it must
have the outcome of the set of all postbacks, in the order of `tests.support.contract`.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from datetime import datetime
from typing import Final, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from deploy.local.servers import Redis
from shared.postback import envelope
from shared.postback.envelope import Arrival
from shared.postback.event import Event
from shared.postback.normalise import decode
from shared.postback.postback import NormalisedPostback
from shared.postback.stored import FORMATS
from shared.settings.settings import Settings
from tests.support import contract
from tests.support.strategies import as_json
from workers.consumer import Delivery
from workers.pipeline import process_window
from workers.store import Store
from workers.verdicts import Received

Result = TypeVar("Result")

# Few values, so that equal times, no times and two outcomes of one moment are common.
_TIMES: Final = (None, "2026-11-24T10:00:00Z", "2026-11-24T11:00:00+01:00", "2026-11-24T12:00:00Z")
_BODIES: Final = st.builds(
    lambda fields, time: as_json(fields if time is None else fields | {"timestamp": time}),
    st.fixed_dictionaries(
        {
            "origin": st.just("MMS_MT"),
            "code": st.sampled_from(["N101", "N102", "N103", "E101", "E102", "N502", "E501"]),
            "tracking-id": st.sampled_from(["T1", "T2"]),
            "status": st.sampled_from(["Delivered", "Expired", "Rejected", "Deferred", "Held"]),
        },
        optional={"handset": st.sampled_from(["Nokia", "Apple"])},
    ),
    st.sampled_from(_TIMES),
)


def order(normalised: NormalisedPostback) -> tuple[int, float, str]:
    """How decisive a postback is, by the contract and not by the code under test."""
    timestamp = normalised.postback.timestamp
    time = datetime.fromisoformat(timestamp).timestamp() if timestamp else 0.0
    phase = contract.phase(str(normalised.track), str(normalised.postback.outcome))
    return phase, time, normalised.rank.identity


class Site(RuleBasedStateMachine):
    """Some workers, a Redis, an archive and a subscriber."""

    url = ""

    @initialize()
    def start(self) -> None:
        self.runner = asyncio.Runner()
        # Workers of two settings side by side: a record may have postbacks of both formats.
        self.stores = {
            number: Store(Settings(redis_url=self.url, record_format=number)) for number in FORMATS
        }
        self.store = self.stores[2]
        self.now = 1_000
        self.archive: list[Arrival] = []
        self.waiting: list[Delivery] = []
        self.kept: dict[tuple[str, str, str], Event] = {}
        self.run(self.store._redis.flushall())  # noqa: SLF001 (the test's own clean slate)

    def run(self, work: Awaitable[Result]) -> Result:
        async def awaited() -> Result:
            return await work

        return self.runner.run(awaited())

    @rule(bodies=st.lists(_BODIES, min_size=1, max_size=4))
    def a_batch_is_published(self, bodies: list[bytes]) -> None:
        arrivals = []
        for body in bodies:
            self.now += 1
            arrivals.append(Arrival(self.now, "acme", "", body))
        self.archive += arrivals
        self.waiting.append(
            Delivery(1, envelope.CONTENT_TYPE, envelope.encode(arrivals), redelivered=False)
        )

    @rule(data=st.data())
    def a_postback_is_sent_again(self, data: st.DataObject) -> None:
        if self.archive:
            self.a_batch_is_published([data.draw(st.sampled_from(self.archive)).body])

    @rule(data=st.data(), dies=st.booleans())
    def a_worker_takes_a_batch(self, data: st.DataObject, *, dies: bool) -> None:
        if not self.waiting:
            return
        at = data.draw(st.integers(0, len(self.waiting) - 1))
        delivery = self.waiting.pop(at)
        store = data.draw(st.sampled_from(list(self.stores.values())))
        events = self.run(process_window(store, [delivery])).events
        if dies:  # with some of its events published
            self.waiting.append(delivery._replace(redelivered=True))
            events = events[: data.draw(st.integers(0, len(events)))]
        self.publish(events)

    @rule()
    def redis_is_emptied(self) -> None:
        self.run(self.store._redis.flushall())  # noqa: SLF001

    @rule(tracking_id=st.sampled_from(["T1", "T2"]))
    def a_record_expires(self, tracking_id: str) -> None:
        key = f"mms:message:{{acme/{tracking_id}}}"
        self.run(self.store._redis.delete(key))  # noqa: SLF001

    @rule(data=st.data())
    def the_archive_is_replayed(self, data: st.DataObject) -> None:
        """From some point on; as `mms-admin rebuild` does it, it publishes nothing."""
        replayed = self.archive[data.draw(st.integers(0, len(self.archive))) :]
        received = [
            Received(each, decode("acme", each.body), redelivered=False) for each in replayed
        ]
        self.run(self.store.merge(received))

    def publish(self, events: Sequence[Event]) -> None:
        for event in events:
            key = (event.source, event.subject, event.type.split(".")[1])
            held = self.kept.get(key)
            if held is None or event.sequence > held.sequence:
                self.kept[key] = event

    def teardown(self) -> None:
        try:
            while self.waiting:  # the queue is worked off
                self.publish(self.run(process_window(self.store, [self.waiting.pop()])).events)
            expected: dict[tuple[str, str, str], NormalisedPostback] = {}
            for arrival in self.archive:
                normalised = decode("acme", arrival.body)
                if normalised.postback.outcome not in contract.NOT_TERMINAL:
                    key = ("/mms-postbacks/acme", normalised.key.id, str(normalised.track))
                    expected[key] = max(expected.get(key, normalised), normalised, key=order)
            assert {key: event.data.outcome for key, event in self.kept.items()} == {
                key: normalised.postback.outcome for key, normalised in expected.items()
            }
            assert {key: event.data.code for key, event in self.kept.items()} == {
                key: normalised.postback.code for key, normalised in expected.items()
            }
        finally:
            for store in self.stores.values():
                self.run(store.aclose())
            self.runner.close()


@pytest.fixture(scope="module")
def site(redis_server: Redis) -> type[Site]:
    Site.url = redis_server.url
    return Site


@pytest.mark.timeout(300)  # 40 lives of a site; a slow machine needs more than the usual time
def test_the_event_with_the_highest_sequence_has_the_right_outcome(site: type[Site]) -> None:
    run_state_machine_as_test(
        site,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
