"""The supervisor of processes: restarts after growing pauses; groups start and stop in order."""

import asyncio
from collections.abc import Sequence

import pytest

from shared.errors import SettingsError, StartError
from shared.process import supervisor
from shared.process.supervisor import Supervisor


class FakeProcess:
    """A process that ends when the test says so."""

    def __init__(self, name: str, calls: list[str], start_errors: Sequence[str] = ()) -> None:
        self.name = name
        self.calls = calls
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._start_errors = list(start_errors)

    async def start(self) -> None:
        self.calls.append(f"start {self.name}")
        if self._start_errors and (error := self._start_errors.pop(0)):
            raise StartError(error)
        self.ended = asyncio.get_running_loop().create_future()

    async def wait(self) -> str:
        return await self.ended

    async def stop(self) -> None:
        self.calls.append(f"stop {self.name}")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of failures at each pause; no pause takes time."""
    found: list[int] = []

    async def backoff(failures: int, *, longest: float) -> None:
        assert longest == supervisor.MAX_PAUSE
        found.append(failures)
        await asyncio.sleep(0)

    monkeypatch.setattr(supervisor, "backoff", backoff)
    return found


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_groups_start_in_order_and_stop_in_reverse(pauses: list[int]) -> None:
    calls: list[str] = []
    async with Supervisor(calls.append) as supervised:
        await supervised.start([FakeProcess("server", calls)])
        await supervised.start([FakeProcess("ingest", calls), FakeProcess("worker", calls)])
    assert calls == [
        *("start server", "start ingest", "start worker"),
        *("stop ingest", "stop worker", "stop server"),
    ]
    assert not pauses


async def test_a_process_that_ends_is_started_again_after_growing_pauses(
    pauses: list[int],
) -> None:
    reports: list[str] = []
    process = FakeProcess("worker", [])
    async with Supervisor(reports.append) as supervised:
        await supervised.start([process])
        for status in ("status 1", "status -9"):
            process.ended.set_result(status)
            await settle()
        assert process.calls == ["start worker"] * 3
    assert pauses == [1, 2]
    assert reports == [
        "worker ended with status 1; starting it again",
        "worker ended with status -9; starting it again",
    ]


async def test_a_process_that_ran_for_long_gets_a_short_pause(
    pauses: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[str] = []
    process = FakeProcess("worker", [])
    async with Supervisor(reports.append) as supervised:
        await supervised.start([process])
        process.ended.set_result("status 1")
        await settle()
        monkeypatch.setattr(supervisor, "SETTLED_AFTER", -1.0)
        process.ended.set_result("status 1")
        await settle()
    assert pauses == [1, 0]
    assert len(reports) == 2


async def test_a_restart_that_fails_is_reported_and_tried_again(pauses: list[int]) -> None:
    reports: list[str] = []
    process = FakeProcess("worker", [], start_errors=["", "port 1 is taken", "port 1 is taken"])
    async with Supervisor(reports.append) as supervised:
        await supervised.start([process])
        process.ended.set_result("status 1")
        await settle()
        assert process.calls == ["start worker"] * 4
    assert pauses == [1, 2, 3]
    assert reports[1:] == ["port 1 is taken"] * 2


async def test_a_first_start_that_fails_is_an_error_and_all_are_stopped(pauses: list[int]) -> None:
    calls: list[str] = []

    async def live() -> None:
        async with Supervisor(calls.append) as supervised:
            await supervised.start([FakeProcess("server", calls)])
            await supervised.start([FakeProcess("worker", calls, start_errors=["no such file"])])

    with pytest.raises(ExceptionGroup) as raised:
        await live()
    assert raised.group_contains(StartError, match="no such file")
    assert calls == ["start server", "start worker", "stop worker", "stop server"]
    assert not pauses


async def test_a_process_that_is_of_no_use_ends_the_context(pauses: list[int]) -> None:
    calls: list[str] = []

    async def live() -> None:
        async with Supervisor(calls.append) as supervised:
            processes = [FakeProcess("refused", calls), FakeProcess("other", calls)]
            await supervised.start(processes)
            processes[0].ended.set_exception(SettingsError("refused"))
            await asyncio.Event().wait()

    async with asyncio.timeout(10):
        with pytest.raises(ExceptionGroup) as raised:
            await live()
    assert raised.group_contains(SettingsError)
    assert calls[2:] == ["stop refused", "stop other"]
    assert not pauses
