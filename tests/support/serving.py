"""An ingress in a thread."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import uvloop

from shared.settings.settings import Settings
from tests.support.answering import Answering, answering


@contextlib.contextmanager
def serving(settings: Settings, **options: Any) -> Iterator[Answering]:
    """An ingress in a thread of its own, on uvloop as in production.

    Args:
        options: as `answering` takes them.
    """
    started: Future[Answering] = Future()
    stop = threading.Event()

    async def serve() -> None:
        async with answering(settings, **options) as server:
            started.set_result(server)
            await asyncio.to_thread(stop.wait)

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield started.result(timeout=10)
    finally:
        stop.set()
        thread.join()
