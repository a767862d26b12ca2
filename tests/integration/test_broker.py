"""A stop reaches whoever connects, also when a library loses it."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ingest.publisher import Publisher
from shared import broker, topology
from shared.settings import Settings


@pytest.mark.parametrize(
    ("module", "name"), [(broker, "_open"), (topology, "declare")], ids=["connecting", "holding"]
)
async def test_a_stop_that_a_library_loses_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, module: object, name: str
) -> None:
    """As `wait_for` of Python 3.11 does when it is cancelled just as its work is done."""
    monkeypatch.setattr(broker, "CHECK_EVERY", 0.05)
    reached = asyncio.Event()
    monkeypatch.setattr(module, name, _deaf(getattr(module, name), reached))
    publishing = asyncio.create_task(Publisher(settings).run())
    async with asyncio.timeout(10):
        await reached.wait()
    publishing.cancel()
    await asyncio.wait([publishing], timeout=10)
    assert publishing.cancelled()


def _deaf(
    call: Callable[..., Coroutine[None, None, Any]], reached: asyncio.Event
) -> Callable[..., Coroutine[None, None, Any]]:
    async def deaf(*arguments: object) -> object:
        answer = await call(*arguments)
        reached.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.2)
        return answer

    return deaf
