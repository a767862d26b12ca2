"""A cancellation ends a publisher that connects, also when a library loses the cancellation."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from aiormq.exceptions import ChannelInvalidStateError
from pamqp.commands import Basic

from deploy.local.servers import RabbitMQ
from ingest.publisher import Publisher
from shared.errors import BrokerUnavailableError, PublishOutcomeUnknownError
from shared.rabbitmq import connection, reconnect, session, topology
from shared.settings.settings import Settings


@pytest.mark.parametrize(
    ("module", "name"), [(session, "_open"), (topology, "declare")], ids=["connecting", "holding"]
)
@pytest.mark.parametrize(
    "error",
    [None, ConnectionRefusedError(), TimeoutError(), Exception(), ChannelInvalidStateError()],
    ids=["done", "refused", "timeout", "bare", "closed"],
)
async def test_a_cancellation_that_a_library_loses_ends_the_publisher(
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
    module: object,
    name: str,
    error: Exception | None,
) -> None:
    """`wait_for` of Python 3.11 loses one that comes just as its work is done."""
    monkeypatch.setattr(reconnect, "CHECK_INTERVAL", 0.05)
    reached = asyncio.Event()
    monkeypatch.setattr(module, name, _deaf(getattr(module, name), reached, error))
    publishing = asyncio.create_task(Publisher(settings).run())
    async with asyncio.timeout(10):
        await reached.wait()
    publishing.cancel()
    await asyncio.wait([publishing], timeout=10)
    assert publishing.cancelled()


@pytest.mark.parametrize("error", [asyncio.CancelledError(), Exception()])
async def test_errors_of_aiormq_at_the_end_of_a_connection_lead_to_a_new_one(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, error: BaseException
) -> None:
    """aiormq fails pending calls with a `CancelledError` or with a bare `Exception`."""
    monkeypatch.setattr(reconnect, "CHECK_INTERVAL", 0.05)
    declare = topology.declare
    fail = [False, True, True, False]  # while it holds the session, and while it opens the next

    async def fails(*arguments: Any) -> None:
        if fail and fail.pop(0):
            raise error
        await declare(*arguments)

    monkeypatch.setattr(topology, "declare", fails)
    publisher = Publisher(settings)
    publishing = asyncio.create_task(publisher.run())
    async with asyncio.timeout(10):
        while fail or publisher.problem is not None:
            assert not publishing.done()
            await asyncio.sleep(0.01)
    publishing.cancel()
    await asyncio.wait([publishing], timeout=10)
    assert publishing.cancelled()


@pytest.mark.parametrize("unsent", [0, 24], ids=["idle", "full"])
async def test_a_session_closes_while_rabbitmq_hangs(
    settings: Settings, rabbit: RabbitMQ, monkeypatch: pytest.MonkeyPatch, unsent: int
) -> None:
    """Also with MiB that RabbitMQ does not read: aiormq alone waits three heartbeats for that."""
    monkeypatch.setattr(connection, "CLOSE_LIMIT", 0.2)  # aiormq waits 2 s
    opened = await session.open_session(settings, name="test")
    await asyncio.to_thread(rabbit.pause)
    try:
        publishing = [asyncio.create_task(_publish(opened, bytes(2**20))) for _ in range(unsent)]
        await asyncio.sleep(0.3)
        async with asyncio.timeout(1.5):
            await opened.close()
            results = await asyncio.gather(*publishing, return_exceptions=True)
        assert {type(result) for result in results} <= {PublishOutcomeUnknownError}
    finally:
        await asyncio.to_thread(rabbit.resume)


async def _publish(opened: session.Session, body: bytes) -> None:
    properties = Basic.Properties(delivery_mode=2)
    await opened.publish(body, routing_key="mms.none", exchange="", properties=properties, limit=30)


def test_a_server_that_closes_each_connection_at_once_is_unavailable() -> None:
    """A load balancer without a node does that. uvloop reports the end as early as possible."""
    with socket.create_server(("127.0.0.1", 0)) as balancer:
        url = f"amqp://guest:guest@127.0.0.1:{balancer.getsockname()[1]}/"
        threading.Thread(target=_close_each, args=(balancer,), daemon=True).start()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            for _ in range(_TRIES):  # aiormq has one error more if the end comes early enough
                with pytest.raises(BrokerUnavailableError):
                    runner.run(session.open_session(Settings(amqp_url=url), name="test"))
        balancer.shutdown(socket.SHUT_RDWR)  # ends the thread


_TRIES = 50


def _close_each(listening: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            listening.accept()[0].close()


def _deaf(
    call: Callable[..., Coroutine[None, None, Any]],
    reached: asyncio.Event,
    error: Exception | None,
) -> Callable[..., Coroutine[None, None, Any]]:
    async def deaf(*arguments: object, **named: object) -> object:
        answer = await call(*arguments, **named)
        reached.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.2)
        if error is not None:
            raise error
        return answer

    return deaf
