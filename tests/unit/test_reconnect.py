"""Sessions are opened one after the other; the delays grow only while they fail at once."""

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from shared.errors import BrokerUnavailableError, PublishOutcomeUnknownError, TopologyConflictError
from shared.rabbitmq import reconnect
from shared.rabbitmq.reconnect import Sessions
from shared.rabbitmq.session import Session


class Broker:
    """Opens sessions or fails; notes what is reported, closed and waited for."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.opened = 0
        self.closed = 0
        self.reports: list[str | None] = []
        self.delays: list[int] = []

    async def open(self) -> Session:
        if self.failures:
            raise self.failures.pop(0)
        self.opened += 1
        return cast("Session", SimpleNamespace(close=self.close))

    async def close(self) -> None:
        self.closed += 1

    async def backoff(self, attempt: int) -> None:
        self.delays.append(attempt)


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    broker = Broker()
    monkeypatch.setattr(reconnect, "backoff", broker.backoff)
    return broker


async def fail(sessions: Sessions, error: BaseException) -> None:
    async with sessions.next():
        raise error


async def test_opening_is_retried_with_growing_delays(broker: Broker) -> None:
    broker.failures = [BrokerUnavailableError("away"), BrokerUnavailableError("still away")]
    async with Sessions(broker.open, broker.reports.append).next():
        assert broker.reports == ["away", "still away", None]
        assert broker.delays == [0, 1]
        assert broker.closed == 0
    assert (broker.opened, broker.closed) == (1, 1)


@pytest.mark.parametrize("error", [BrokerUnavailableError, PublishOutcomeUnknownError])
@pytest.mark.parametrize("grouped", [False, True])
async def test_a_lost_session_is_reported_and_closed_and_the_next_one_opened(
    broker: Broker, error: type[Exception], *, grouped: bool
) -> None:
    sessions = Sessions(broker.open, broker.reports.append)
    lost: Exception = error("lost")
    await fail(sessions, ExceptionGroup("", [lost]) if grouped else lost)
    assert broker.reports == [None, "lost"]
    assert (broker.opened, broker.closed, broker.delays) == (1, 1, [])
    async with sessions.next():
        assert (broker.opened, broker.delays) == (2, [0])


async def test_sessions_that_fail_at_once_are_opened_with_growing_delays(broker: Broker) -> None:
    sessions = Sessions(broker.open, broker.reports.append)
    for _ in range(4):
        await fail(sessions, BrokerUnavailableError("lost"))
    assert broker.delays == [0, 1, 2]


async def test_the_delay_is_short_again_after_a_session_that_worked(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = Sessions(broker.open, broker.reports.append)
    for _ in range(3):
        await fail(sessions, BrokerUnavailableError("lost"))
    monkeypatch.setattr(reconnect, "SHORT_LIFE", 0.0)
    await fail(sessions, BrokerUnavailableError("lost after a long time"))
    async with sessions.next():
        assert broker.delays == [0, 1, 2, 0]
    async with sessions.next():  # the one before ended without an error
        assert broker.delays == [0, 1, 2, 0]


@pytest.mark.parametrize("error", [ZeroDivisionError(), asyncio.CancelledError()])
async def test_a_defect_and_a_stop_end_the_loop_and_close_the_session(
    broker: Broker, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        await fail(Sessions(broker.open, broker.reports.append), error)
    assert (broker.opened, broker.closed) == (1, 1)


async def test_a_conflict_is_retried_only_if_the_caller_wants_it(broker: Broker) -> None:
    broker.failures = [TopologyConflictError("differs")]
    with pytest.raises(TopologyConflictError):
        await fail(Sessions(broker.open, broker.reports.append), AssertionError())
    broker.failures = [TopologyConflictError("differs")]
    retried = Sessions(broker.open, broker.reports.append, retry_on=(TopologyConflictError,))
    async with retried.next():
        assert broker.reports == ["differs", None]


async def test_a_first_session_is_used_before_one_is_opened(broker: Broker) -> None:
    first = await broker.open()
    sessions = Sessions(broker.open, broker.reports.append, first=first)
    async with sessions.next() as session:
        assert session is first
    async with sessions.next() as session:
        assert session is not first
    assert (broker.opened, broker.closed) == (2, 2)
