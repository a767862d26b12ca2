"""When a component ends unexpectedly, the others are cancelled and the error says which it was."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from shared.errors import ComponentEndedError, TopologyConflictError
from shared.process import components
from shared.process.components import Components


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "CANCEL_INTERVAL", 0.01)


async def for_ever() -> None:
    await asyncio.Event().wait()


async def returns() -> None:
    await asyncio.sleep(0)


async def fails() -> None:
    await asyncio.sleep(0)
    raise ZeroDivisionError


async def is_cancelled_by_a_library() -> None:
    await asyncio.sleep(0)
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("component", "why"),
    [(returns, "returned"), (fails, "ZeroDivisionError"), (is_cancelled_by_a_library, "cancelled")],
)
async def test_a_component_that_ends_ends_all_and_the_error_names_it(
    component: Callable[[], Any], why: str
) -> None:
    steps: list[str | None] = []

    async def live() -> None:
        async with Components() as components:
            components.start("other", for_ever())
            steps.append(components.problem)
            components.start("drain", component())
            try:
                await asyncio.Event().wait()
            finally:
                steps.append(components.problem)
                await asyncio.sleep(0.02)
                steps.append("cleaned up")

    async with asyncio.timeout(10):
        with pytest.raises(BaseExceptionGroup) as caught:
            await live()
    (error,) = caught.value.exceptions
    assert isinstance(error, ComponentEndedError)
    assert why in str(error)
    assert str(error).startswith("the drain ended unexpectedly")
    assert steps == [None, str(error), "cleaned up"]


async def test_an_error_for_the_operator_keeps_its_message() -> None:
    async def conflict() -> None:
        raise TopologyConflictError("delete the queue")

    async def live() -> None:
        async with Components() as components:
            components.start("publisher", conflict())
            await asyncio.Event().wait()

    with pytest.raises(BaseExceptionGroup) as caught:
        await live()
    assert str(caught.value.exceptions[0]) == "delete the queue"


async def test_at_a_stop_components_return_or_are_cancelled() -> None:
    stop = asyncio.Event()

    async def returns_on_stop() -> None:
        await stop.wait()

    async with asyncio.timeout(10), Components() as components:
        waits = components.start("batcher", returns_on_stop())
        cancelled = components.start("drain", for_ever())
        await asyncio.sleep(0)
        components.stopping = True
        stop.set()
        await asyncio.wait([waits])
    assert cancelled.cancelled()


@pytest.mark.parametrize("fault", [None, fails])
async def test_a_component_that_loses_cancellations_is_cancelled_until_it_ends(
    fault: Callable[[], Any] | None,
) -> None:
    lost = 0

    async def deaf() -> None:
        nonlocal lost
        while lost < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
        await asyncio.Event().wait()

    async def live() -> None:
        async with Components() as components:
            components.start("deaf", deaf())
            await asyncio.sleep(0)
            if fault is not None:
                components.start("faulty", fault())
                await asyncio.Event().wait()

    async with asyncio.timeout(10):
        expected = pytest.raises(BaseExceptionGroup) if fault else contextlib.nullcontext()
        with expected:
            await live()
    assert lost == 3
