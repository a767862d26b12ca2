"""The ingress's responses, with a RabbitMQ that works and with one that fails."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable

import aio_pika
import aiohttp
import msgspec
import pytest

from deploy.local.servers import RabbitMQ
from shared.postback import envelope
from shared.rabbitmq import topology
from shared.rabbitmq.message_size import forget_max_message_sizes
from shared.settings.settings import Settings
from shared.settings.units import Bytes, Names
from tests.support import running

BODY = b'{"origin":"MMS_MT","code":"N102","tracking-id":"T-1","status":"Delivered"}'


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def url(settings: Settings, path: str = "/postbacks") -> str:
    return f"http://127.0.0.1:{settings.ingest_port}{path}"


async def queued(settings: Settings) -> int:
    """Batches in the input queue."""
    async with running.channel(settings) as channel:
        try:
            queue = await channel.declare_queue(topology.STATE_QUEUE, passive=True)
        except aio_pika.exceptions.ChannelNotFoundEntity:  # not declared yet
            return 0
        return queue.declaration_result.message_count or 0


async def test_200_has_an_empty_body_and_the_postback_is_in_the_queue_unchanged(
    settings: Settings, http: aiohttp.ClientSession
) -> None:
    body = b"anything \x00\xff at all"
    async with running.ingest(settings):
        async with http.post(
            url(settings), data=body, headers={"Content-Type": "text/odd; charset=x"}
        ) as answer:
            assert answer.status == 200
            assert await answer.read() == b""
        assert await running.until(lambda: _has(settings, 1))
        async with running.channel(settings) as channel:
            queue = await channel.get_queue(topology.STATE_QUEUE)
            message = await queue.get(no_ack=True)
    assert message.delivery_mode == 2
    assert message.content_type == envelope.CONTENT_TYPE
    (arrival,) = envelope.decode(message.body)
    assert arrival.body == body
    assert arrival.content_type == "text/odd; charset=x"
    assert arrival.source == "default"


@pytest.mark.parametrize(
    ("request_line", "body", "status"),
    [
        ("POST /postbacks", b"", 400),
        ("POST /postbacks/nobody", BODY, 404),
        ("POST /postbacks/default", BODY, 200),
        ("POST /postbacks/other", BODY, 200),
        ("POST /", BODY, 404),
        ("POST /postbacks/", BODY, 404),
        ("GET /postbacks", None, 405),
        ("PUT /postbacks", BODY, 405),
        ("POST /postbacks", b"x" * 1025, 413),
        ("POST /postbacks", b"x" * 1024, 200),
    ],
)
async def test_status(
    settings: Settings,
    http: aiohttp.ClientSession,
    request_line: str,
    body: bytes | None,
    status: int,
) -> None:
    method, path = request_line.split()
    limited = msgspec.structs.replace(
        settings, max_body=Bytes(1024), sources=Names(("default", "other"))
    )
    async with (
        running.ingest(limited),
        http.request(method, url(limited, path), data=body) as answer,
    ):
        assert answer.status == status
        assert bool(await answer.text()) == (status != 200)
        assert answer.headers.get("Allow") == ("POST" if status == 405 else None)


async def test_a_header_that_is_not_utf_8_is_accepted(settings: Settings) -> None:
    async with running.ingest(settings):
        reader, writer = await asyncio.open_connection("127.0.0.1", settings.ingest_port)
        writer.write(
            b"POST /postbacks HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\xff\r\n"
            b"Content-Length: 2\r\n\r\n{}"
        )
        assert b" 200 " in await asyncio.wait_for(reader.readline(), 5)
        writer.close()
        await running.post(settings, BODY)


async def test_a_chunked_body_over_the_limit_gets_413(
    settings: Settings, http: aiohttp.ClientSession
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 1024

    limited = msgspec.structs.replace(settings, max_body=Bytes(2048))
    async with running.ingest(limited), http.post(url(limited), data=endless()) as answer:
        assert answer.status == 413


async def test_an_incomplete_body_gets_408(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.http.server.RESPONSE_LIMIT", 0.2)
    async with running.ingest(settings):
        reader, writer = await asyncio.open_connection("127.0.0.1", settings.ingest_port)
        writer.write(b"POST /postbacks HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        answer = await asyncio.wait_for(reader.readline(), 5)
        writer.close()
    assert b" 408 " in answer


async def test_without_rabbitmq_and_spool_503_with_retry_after(
    settings: Settings, http: aiohttp.ClientSession
) -> None:
    without_spool = msgspec.structs.replace(
        settings, amqp_url="amqp://guest:guest@127.0.0.1:1/", spool_path=""
    )
    async with running.starting_ingest(without_spool):
        async with http.post(url(without_spool), data=BODY) as answer:
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) > 0
        async with http.get(f"http://127.0.0.1:{without_spool.admin_port}/readyz") as answer:
            assert answer.status == 503


async def test_an_unroutable_batch_is_not_answered_200(
    settings: Settings, http: aiohttp.ClientSession
) -> None:
    """RabbitMQ confirms it, but no queue has it."""
    without_spool = msgspec.structs.replace(settings, spool_path="")
    async with running.ingest(without_spool), running.channel(without_spool) as channel:
        for name in (topology.STATE_QUEUE, topology.ARCHIVE):
            await (await channel.get_queue(name)).unbind(topology.POSTBACKS, "")
        async with http.post(url(without_spool), data=BODY) as answer:
            assert answer.status == 503


async def test_a_full_queue_without_a_spool_is_answered_503(
    settings: Settings, http: aiohttp.ClientSession
) -> None:
    tiny = msgspec.structs.replace(settings, spool_path="", queue_max_bytes=Bytes(2000))
    async with running.ingest(tiny):
        statuses = []
        for _ in range(60):
            async with http.post(url(tiny), data=BODY) as answer:
                statuses.append(answer.status)
        assert statuses[0] == 200
        assert statuses[-1] == 503
        accepted = statuses.count(200)
        assert await running.until(lambda: _has(settings, accepted))


@pytest.mark.parametrize("spool_is", ["off", "broken"])
async def test_after_a_full_queue_it_is_ready_again_without_a_postback(
    spool_is: str, settings: Settings, http: aiohttp.ClientSession
) -> None:
    """A balancer that uses `/readyz` sends nothing to an ingress that is not ready."""
    tiny = msgspec.structs.replace(settings, queue_max_bytes=Bytes(2000))
    if spool_is == "off":
        tiny = msgspec.structs.replace(tiny, spool_path="")
    async with running.ingest(tiny), running.channel(tiny) as channel:
        assert await running.until(lambda: _reports(tiny, http, "rabbitmq: ok"))
        if spool_is == "broken":
            with contextlib.closing(
                sqlite3.connect(tiny.spool_path, isolation_level=None)
            ) as other:
                other.execute("DROP TABLE spool")
        status = 200
        while status == 200:
            async with http.post(url(tiny), data=BODY) as answer:
                status = answer.status
        assert status == 503
        await (await channel.get_queue(topology.STATE_QUEUE)).purge()
        assert await running.until(lambda: _reports(tiny, http, "rabbitmq: ok"))
        assert await running.answers(f"http://127.0.0.1:{tiny.admin_port}/readyz")
        await running.post(tiny, BODY)


async def test_a_full_queue_spools_and_the_spool_drains_in_order(
    settings: Settings, http: aiohttp.ClientSession
) -> None:
    tiny = msgspec.structs.replace(settings, queue_max_bytes=Bytes(2000))
    async with running.ingest(tiny), running.channel(tiny) as channel:
        for number in range(60):
            async with http.post(url(tiny), data=b"%d" % number) as answer:
                assert answer.status == 200
        queue = await channel.get_queue(topology.STATE_QUEUE)
        bodies: list[int] = []
        while len(bodies) < 60:
            message = await running.until(lambda: queue.get(no_ack=True, fail=False))
            assert message is not None
            bodies.extend(int(arrival.body) for arrival in envelope.decode(message.body))
    assert set(bodies) == set(range(60))


async def test_an_ingress_that_starts_without_rabbitmq_spools(settings: Settings) -> None:
    down = msgspec.structs.replace(settings, amqp_url="amqp://guest:guest@127.0.0.1:1/")
    async with running.ingest(down):
        await running.post(down, BODY)
    async with running.ingest(settings):
        assert await running.until(lambda: _has(settings, 1))


async def test_postbacks_too_large_for_rabbitmq_do_not_block_others(
    settings: Settings, http: aiohttp.ClientSession, fresh_rabbit: Callable[..., RabbitMQ]
) -> None:
    """They are answered 200 and stay on disk; the others go to RabbitMQ."""
    rabbit = fresh_rabbit(config=["max_message_size = 5000"])
    settings = msgspec.structs.replace(settings, amqp_url=rabbit.url)
    async with running.ingest(settings):
        assert await running.until(lambda: _reports(settings, http, "rabbitmq: ok"))
        for at in range(3):
            await running.post(settings, b"x" * 6000, b"y" * 500)
            assert await running.until(lambda: _reports(settings, http, "rabbitmq: ok"))
            assert await running.until(lambda: _has(settings, at + 1))  # noqa: B023
        aside = "mms_ingest_set_aside_postbacks 3.0"
        assert await running.until(lambda: _reports(settings, http, aside, "metrics"))
    # RabbitMQ 3 reads the first for each channel. RabbitMQ 4 reads the second, set at its start.
    rabbit.ctl("eval", "application:set_env(rabbit, max_message_size, 100000).")
    rabbit.ctl("eval", "persistent_term:put(max_message_size, 100000).")
    forget_max_message_sizes()
    async with running.ingest(settings):  # it tries them again
        assert await running.until(lambda: _has(settings, 6))


async def test_ready_means_that_a_postback_sent_now_is_answered_200(
    settings: Settings, http: aiohttp.ClientSession
) -> None:
    """While RabbitMQ is down, the ingress is ready exactly while the spool has space."""
    down = msgspec.structs.replace(
        settings, amqp_url="amqp://guest:guest@127.0.0.1:1/", spool_max_bytes=Bytes(300_000)
    )
    async with running.ingest(down):
        assert await running.until(lambda: _reports(down, http, "rabbitmq: degraded: "))
        statuses: list[int] = []
        while statuses[-3:] != [503] * 3:
            async with http.post(url(down), data=b"x" * 20_000) as answer:
                statuses.append(answer.status)
        assert statuses[0] == 200
        async with http.get(f"http://127.0.0.1:{down.admin_port}/readyz") as answer:
            assert answer.status == 503
            text = await answer.text()
    assert "rabbitmq: not ready: " in text
    assert "spool: not ready: " in text
    async with running.starting_ingest(down):  # without a postback
        assert await running.until(lambda: _reports(down, http, "spool: not ready: "), within=2.0)
    async with running.ingest(msgspec.structs.replace(down, amqp_url=settings.amqp_url)):
        assert await running.until(lambda: _reports(down, http, "spool: ok"))
        await running.post(down, BODY)


async def _reports(
    settings: Settings, http: aiohttp.ClientSession, line: str, page: str = "readyz"
) -> bool:
    async with http.get(f"http://127.0.0.1:{settings.admin_port}/{page}") as answer:
        return f"\n{line}" in f"\n{await answer.text()}"


async def _has(settings: Settings, count: int) -> bool:
    return await queued(settings) == count
