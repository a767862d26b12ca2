"""The ingress's answers, with RabbitMQ as it is and as it should not be."""

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
from shared.rabbitmq.session import forget_max_message_sizes
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


async def waiting(settings: Settings) -> int:
    """Batches in the input queue."""
    async with running.channel(settings) as channel:
        try:
            queue = await channel.declare_queue(topology.STATE_QUEUE, passive=True)
        except aio_pika.exceptions.ChannelNotFoundEntity:  # nobody has declared it yet
            return 0
        return queue.declaration_result.message_count or 0


async def test_200_has_an_empty_body_and_the_batch_is_in_the_queue_as_it_came(
    settings: Settings, http: aiohttp.ClientSession
) -> None:
    body = b"anything \x00\xff at all"
    async with running.ingest(settings):
        async with http.post(
            url(settings), data=body, headers={"Content-Type": "text/odd; charset=x"}
        ) as answer:
            assert answer.status == 200
            assert await answer.read() == b""
        assert await running.until(lambda: _is(settings, 1))
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
async def test_answers(
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


async def test_a_header_that_is_no_utf_8_harms_nobody(settings: Settings) -> None:
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


async def test_a_body_that_does_not_come_gets_408(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.http.server.ANSWER_LIMIT", 0.2)
    async with running.ingest(settings):
        reader, writer = await asyncio.open_connection("127.0.0.1", settings.ingest_port)
        writer.write(b"POST /postbacks HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        answer = await asyncio.wait_for(reader.readline(), 5)
        writer.close()
    assert b" 408 " in answer


async def test_no_broker_and_no_spool_is_503_with_retry_after(
    settings: Settings, http: aiohttp.ClientSession
) -> None:
    alone = msgspec.structs.replace(
        settings, amqp_url="amqp://guest:guest@127.0.0.1:1/", spool_path=""
    )
    async with running.starting_ingest(alone):
        async with http.post(url(alone), data=BODY) as answer:
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) > 0
        async with http.get(f"http://127.0.0.1:{alone.admin_port}/readyz") as answer:
            assert answer.status == 503


async def test_unroutable_is_no_200(settings: Settings, http: aiohttp.ClientSession) -> None:
    """Confirmed by RabbitMQ, but no queue took it."""
    alone = msgspec.structs.replace(settings, spool_path="")
    async with running.ingest(alone), running.channel(alone) as channel:
        for name in (topology.STATE_QUEUE, topology.ARCHIVE):
            await (await channel.get_queue(name)).unbind(topology.POSTBACKS, "")
        async with http.post(url(alone), data=BODY) as answer:
            assert answer.status == 503


async def test_a_full_queue_is_no_200_without_a_spool(
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
        taken = statuses.count(200)
        assert await running.until(lambda: _is(settings, taken))


@pytest.mark.parametrize("spool_is", ["off", "broken"])
async def test_after_a_full_queue_it_is_ready_again_though_nobody_sends_anything(
    spool_is: str, settings: Settings, http: aiohttp.ClientSession
) -> None:
    """A balancer that asks `/readyz` sends nothing to an ingress that is not ready."""
    tiny = msgspec.structs.replace(settings, queue_max_bytes=Bytes(2000))
    if spool_is == "off":
        tiny = msgspec.structs.replace(tiny, spool_path="")
    async with running.ingest(tiny), running.channel(tiny) as channel:
        assert await running.until(lambda: _says(tiny, http, "rabbitmq: ok"))
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
        assert await running.until(lambda: _says(tiny, http, "rabbitmq: ok"))
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
        came: list[int] = []
        while len(came) < 60:
            message = await running.until(lambda: queue.get(no_ack=True, fail=False))
            assert message is not None
            came.extend(int(arrival.body) for arrival in envelope.decode(message.body))
    assert set(came) == set(range(60))


async def test_an_ingress_that_starts_without_rabbitmq_spools(settings: Settings) -> None:
    away = msgspec.structs.replace(settings, amqp_url="amqp://guest:guest@127.0.0.1:1/")
    async with running.ingest(away):
        await running.post(away, BODY)
    async with running.ingest(settings):
        assert await running.until(lambda: _is(settings, 1))


async def test_postbacks_that_rabbitmq_finds_too_large_keep_none_from_it(
    settings: Settings, http: aiohttp.ClientSession, fresh_rabbit: Callable[..., RabbitMQ]
) -> None:
    """They are answered 200 and kept on disk; the rest goes to RabbitMQ, which is well."""
    rabbit = fresh_rabbit(config=["max_message_size = 5000"])
    settings = msgspec.structs.replace(settings, amqp_url=rabbit.url)
    async with running.ingest(settings):
        assert await running.until(lambda: _says(settings, http, "rabbitmq: ok"))
        for at in range(3):
            await running.post(settings, b"x" * 6000, b"y" * 500)
            assert await running.until(lambda: _says(settings, http, "rabbitmq: ok"))
            assert await running.until(lambda: _is(settings, at + 1))  # noqa: B023
        aside = "mms_ingest_set_aside_postbacks 3.0"
        assert await running.until(lambda: _says(settings, http, aside, "metrics"))
    # RabbitMQ 3 reads the first for each channel, RabbitMQ 4 the second, set at its start.
    rabbit.ctl("eval", "application:set_env(rabbit, max_message_size, 100000).")
    rabbit.ctl("eval", "persistent_term:put(max_message_size, 100000).")
    forget_max_message_sizes()
    async with running.ingest(settings):  # it tries once more
        assert await running.until(lambda: _is(settings, 6))


async def test_readiness_is_whether_a_postback_sent_now_is_answered_200(
    settings: Settings, http: aiohttp.ClientSession
) -> None:
    """RabbitMQ is away: ready while the spool has room, and not from then until it has again."""
    away = msgspec.structs.replace(
        settings, amqp_url="amqp://guest:guest@127.0.0.1:1/", spool_max_bytes=Bytes(300_000)
    )
    async with running.ingest(away):
        assert await running.until(lambda: _says(away, http, "rabbitmq: degraded: "))
        statuses: list[int] = []
        while statuses[-3:] != [503] * 3:
            async with http.post(url(away), data=b"x" * 20_000) as answer:
                statuses.append(answer.status)
        assert statuses[0] == 200
        async with http.get(f"http://127.0.0.1:{away.admin_port}/readyz") as answer:
            assert answer.status == 503
            text = await answer.text()
    assert "rabbitmq: not ready: " in text
    assert "spool: not ready: " in text
    async with running.starting_ingest(away):  # nobody sends anything, and it is known all the same
        assert await running.until(lambda: _says(away, http, "spool: not ready: "), within=2.0)
    async with running.ingest(msgspec.structs.replace(away, amqp_url=settings.amqp_url)):
        assert await running.until(lambda: _says(away, http, "spool: ok"))
        await running.post(away, BODY)


async def _says(
    settings: Settings, http: aiohttp.ClientSession, line: str, page: str = "readyz"
) -> bool:
    async with http.get(f"http://127.0.0.1:{settings.admin_port}/{page}") as answer:
        return f"\n{line}" in f"\n{await answer.text()}"


async def _is(settings: Settings, count: int) -> bool:
    return await waiting(settings) == count
