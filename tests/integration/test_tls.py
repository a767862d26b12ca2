"""TLS in all three directions: to the provider, to RabbitMQ and to Redis, each one verified."""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import msgspec
import pytest
import redis
import uvloop
from redis.asyncio.sentinel import SentinelConnectionPool

from deploy.local.ports import free_port
from deploy.local.servers import RabbitMQ, Redis
from ingest.simulate.lifecycles import generate
from ingest.simulate.options import Options
from ingest.simulate.provider import send
from shared.errors import BrokerUnavailableError, SettingsError, UntrustedServerError
from shared.process import tls
from shared.process.cli import only_ours
from shared.rabbitmq.session import open_session
from shared.redis import client as redis_client
from shared.settings.load import load_settings
from shared.settings.settings import Settings
from tests.conftest import SMALL
from tests.support import running
from tests.support.certificates import Authority, Signed
from tests.support.doctor import Examined
from workers.admin.doctor.finding import State

BODY = b'{"origin":"MMS_MT","code":"N102","tracking-id":"T-1","status":"Delivered"}'


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other-ca"))


@pytest.fixture(scope="module")
def signed(authority: Authority) -> Signed:
    return authority.sign("server")


@pytest.fixture(scope="module")
def elsewhere(authority: Authority) -> Signed:
    """A valid certificate of another host."""
    return authority.sign("elsewhere", names="DNS:elsewhere.example")


async def test_the_ingress(settings: Settings, authority: Authority, signed: Signed) -> None:
    secured = msgspec.structs.replace(
        settings, tls_cert=str(signed.cert), tls_key=str(signed.key), spool_path=""
    )
    trusting = ssl.create_default_context(cafile=authority.cert)
    url = f"127.0.0.1:{settings.ingest_port}/postbacks"
    async with running.ingest(secured), aiohttp.ClientSession() as http:
        async with http.post(f"https://{url}", data=BODY, ssl=trusting) as answer:
            assert answer.status == 200
        with pytest.raises(aiohttp.ClientError):
            await http.post(f"http://{url}", data=BODY)
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await http.post(f"https://{url}", data=BODY)


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run])
def test_a_client_that_sends_at_once_after_connecting_is_answered(
    run: Callable[..., None], settings: Settings, authority: Authority, signed: Signed
) -> None:
    """On both loops, for uvloop may read before the handshake has begun."""
    secured = msgspec.structs.replace(settings, tls_cert=str(signed.cert), tls_key=str(signed.key))
    trusting = ssl.create_default_context(cafile=authority.cert)
    request = b"POST /postbacks HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(BODY)

    def answer() -> bytes:
        plain = socket.create_connection(("127.0.0.1", settings.ingest_port), 3)
        with trusting.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            connection.sendall(request + BODY)
            return connection.recv(15)

    async def ask() -> None:
        async with running.ingest(secured):
            for _ in range(30):
                assert await asyncio.to_thread(answer) == b"HTTP/1.1 200 OK"

    run(ask())


async def test_the_simulator(settings: Settings, authority: Authority, signed: Signed) -> None:
    secured = msgspec.structs.replace(settings, tls_cert=str(signed.cert), tls_key=str(signed.key))
    url = f"https://127.0.0.1:{settings.ingest_port}/postbacks"
    messages = generate(2, seed=1)
    async with running.ingest(secured):
        trusting = Options(tls_ca=str(authority.cert))
        assert not (await send(url, messages, trusting)).unanswered
        with pytest.raises(ExceptionGroup) as untrusted:  # at once, not after its resends
            await send(url, messages, Options())
    error = only_ours(untrusted.value)
    assert isinstance(error, UntrustedServerError)
    assert "MMS_TLS_CA" in str(error)
    assert "127.0.0.1" in str(error)


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


async def test_every_address_of_both_families(settings: Settings) -> None:
    everywhere = msgspec.structs.replace(settings, ingest_host="::", open=True)
    async with running.ingest(everywhere), aiohttp.ClientSession() as http:
        hosts = ["127.0.0.1", "[::1]"] if _has_ipv6() else ["127.0.0.1"]
        for host in hosts:
            url = f"http://{host}:{settings.ingest_port}/postbacks"
            async with http.post(url, data=BODY) as answer:
                assert answer.status == 200


async def test_a_slow_handshake_is_closed(
    settings: Settings, signed: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.http.tls_handshake.HANDSHAKE_LIMIT", 0.3)
    secured = msgspec.structs.replace(settings, tls_cert=str(signed.cert), tls_key=str(signed.key))
    async with running.ingest(secured):
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", settings.ingest_port)
        writer.write(b"\x16\x03\x01")
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        assert time.monotonic() - began < 3
        writer.close()


def test_files_that_cannot_be_used(signed: Signed, stranger: Authority, tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("hush-hush")
    other = stranger.sign("other")
    for cert, key in [
        (junk, signed.key),
        (signed.cert, junk),
        (signed.cert, other.key),
        (tmp_path / "none", signed.key),
        (signed.cert, ""),
    ]:
        with pytest.raises(SettingsError, match="MMS_TLS_CERT") as raised:
            tls.server_context(str(cert), str(key))
        assert "hush" not in str(raised.value)
    assert tls.server_context("", "") is None
    both = tmp_path / "both.pem"
    both.write_bytes(signed.cert.read_bytes() + signed.key.read_bytes())
    assert tls.server_context(str(both), "") is not None


@pytest.fixture
def secure_rabbit(fresh_rabbit: Callable[..., RabbitMQ], signed: Signed) -> tuple[RabbitMQ, int]:
    """One that speaks TLS on a second port."""
    port = free_port()
    lines = (
        f"listeners.ssl.1 = 127.0.0.1:{port}",
        f"ssl_options.certfile = {signed.cert}",
        f"ssl_options.keyfile = {signed.key}",
        "ssl_options.verify = verify_none",
    )
    return fresh_rabbit(config=lines), port


@pytest.fixture
def secure(
    secure_rabbit: tuple[RabbitMQ, int],
    fresh_redis: Callable[..., Redis],
    signed: Signed,
    authority: Authority,
) -> Settings:
    """All of it with TLS, but for the provider."""
    return Settings(
        amqp_url=f"amqps://guest:guest@127.0.0.1:{secure_rabbit[1]}/",
        redis_url=f"rediss://127.0.0.1:{secure_redis(fresh_redis, signed)}/0",
        tls_ca=str(authority.cert),
        ingest_port=free_port(),
        admin_port=free_port(),
        spool_path="",
        queue_max_bytes=SMALL,
        archive_max_bytes=SMALL,
    )


async def test_rabbitmq_and_the_whole_way_of_a_postback(
    secure: Settings, secure_rabbit: tuple[RabbitMQ, int], stranger: Authority
) -> None:
    rabbit, _ = secure_rabbit
    settings = secure
    async with running.ingest(settings), running.worker(running.beside(settings)):
        plain = msgspec.structs.replace(settings, amqp_url=rabbit.url)
        async with running.subscriber(plain) as subscriber:
            await running.post(settings, BODY)
            assert (await subscriber.event()).type == "mms.message.delivered"
    for ca in ("", str(stranger.cert)):
        with pytest.raises(BrokerUnavailableError, match=r"(?i)certificate") as raised:
            await open_session(msgspec.structs.replace(settings, tls_ca=ca), name="test")
        assert "guest" not in str(raised.value)


def test_the_doctor(secure: Settings) -> None:
    examined = Examined(secure)
    assert examined.wrong == []
    assert examined["redis permissions"].state is State.OK
    examined = Examined(msgspec.structs.replace(secure, tls_ca=""))
    assert len(examined.wrong) == 2
    for name in examined.wrong:
        assert "certificate" in examined[name].found.lower()
        assert "MMS_TLS_CA" in examined[name].advice


async def test_rabbitmq_in_place_of_another(
    fresh_rabbit: Callable[..., RabbitMQ], authority: Authority, elsewhere: Signed
) -> None:
    port = free_port()
    lines = (
        f"listeners.ssl.1 = 127.0.0.1:{port}",
        f"ssl_options.certfile = {elsewhere.cert}",
        f"ssl_options.keyfile = {elsewhere.key}",
    )
    fresh_rabbit(config=lines)
    settings = Settings(
        amqp_url=f"amqps://guest:guest@127.0.0.1:{port}/", tls_ca=str(authority.cert)
    )
    with pytest.raises(BrokerUnavailableError, match=r"(?i)certificate"):
        await open_session(settings, name="test")


def secure_redis(fresh_redis: Callable[..., Redis], signed: Signed, *more: str) -> int:
    """The port on which a Redis of its own speaks TLS."""
    port = free_port()
    fresh_redis(arguments=(*_tls(port, signed), *more))
    return port


def _tls(port: int, signed: Signed) -> tuple[str, ...]:
    return (
        *("--tls-port", str(port), "--tls-cert-file", str(signed.cert)),
        *("--tls-key-file", str(signed.key), "--tls-auth-clients", "no"),
    )


async def answers(url: str, ca: Authority | None) -> bool:
    client = redis_client.client(url, 2.0, str(ca.cert) if ca else "")
    try:
        return bool(await client.ping())
    finally:
        await client.aclose()
        pool = getattr(client, "connection_pool", None)
        if isinstance(pool, SentinelConnectionPool):
            await pool.sentinel_manager.aclose()


async def test_redis(
    fresh_redis: Callable[..., Redis], authority: Authority, stranger: Authority, signed: Signed
) -> None:
    port = secure_redis(fresh_redis, signed)
    url = f"rediss://127.0.0.1:{port}/0"
    assert await answers(url, authority)
    assert await answers(f"{url}?health_check_interval=9", authority)
    for ca in (None, stranger):
        with pytest.raises((OSError, ConnectionError), match=r"(?i)certificate"):
            await _raised(url, ca)


async def test_redis_in_place_of_another(
    fresh_redis: Callable[..., Redis], authority: Authority, elsewhere: Signed
) -> None:
    port = secure_redis(fresh_redis, elsewhere)
    with pytest.raises(OSError, match=r"(?i)certificate|mismatch"):
        await _raised(f"rediss://127.0.0.1:{port}/0", authority)


async def test_a_redis_cluster(
    fresh_redis: Callable[..., Redis], authority: Authority, stranger: Authority, signed: Signed
) -> None:
    ca = ("--tls-ca-cert-file", str(authority.cert))
    bus = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--tls-cluster", "yes")
    port = secure_redis(fresh_redis, signed, *bus, *ca)
    async with redis.asyncio.Redis(
        host="127.0.0.1", port=port, ssl=True, ssl_ca_certs=str(authority.cert)
    ) as one:
        await one.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        await running.until(lambda: _is_whole(one))
    url = f"rediss+cluster://127.0.0.1:{port}"
    assert await answers(url, authority)
    with pytest.raises((OSError, redis.exceptions.RedisClusterException)):
        await _raised(url, stranger)


async def _is_whole(node: redis.asyncio.Redis) -> bool:
    return "ok" in str(await node.execute_command("CLUSTER", "INFO")).partition("slots")[0]


async def test_a_redis_behind_sentinels(
    fresh_redis: Callable[..., Redis],
    authority: Authority,
    stranger: Authority,
    signed: Signed,
    tmp_path: Path,
) -> None:
    ca = ("--tls-ca-cert-file", str(authority.cert), "--tls-replication", "yes")
    master = secure_redis(fresh_redis, signed, *ca)
    port = free_port()
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(f"sentinel monitor mymaster 127.0.0.1 {master} 1\n")
    fresh_redis(configuration=configuration, arguments=(*_tls(port, signed), *ca))
    url = f"rediss+sentinel://127.0.0.1:{port}/mymaster/0"
    assert await running.until(lambda: _settled(url, authority))
    with pytest.raises((OSError, redis.exceptions.RedisError)):
        await _raised(url, stranger)


async def _settled(url: str, ca: Authority) -> bool:
    """A Sentinel needs a moment before it knows its master."""
    try:
        return await answers(url, ca)
    except redis.exceptions.ConnectionError:
        return False


async def _raised(url: str, ca: Authority | None) -> None:
    """redis-py's own errors are no OSErrors; what they came from is."""

    try:
        await answers(url, ca)
    except redis.exceptions.ConnectionError as error:
        raise OSError(str(error)) from error


@pytest.mark.parametrize(
    "url",
    [
        "rediss://h/0?ssl_cert_reqs=none",
        "rediss://h/0?ssl_check_hostname=false",
        "redis://mms:hu/sh-hush@h:1/0",
        "redis+cluster://mms:hu/sh-hush@h:1",
        "redis+sentinel://mms:hush@h:1",
        "redis+sentinel://mms:hush@h:1/mymaster/first",
        "redis://mms:hush@h:1/first",
        "rediss://mms:hush@h:1/0/1",
        "http://mms:hush@h:1",
        "hush",
    ],
)
def test_redis_urls_that_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(SettingsError, match="MMS_REDIS_URL") as raised:
        redis_client.client(url, 1.0)
    assert "hush" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_verification_of_rabbitmq_cannot_be_turned_off() -> None:

    with pytest.raises(SettingsError, match="always verified"):
        load_settings({"MMS_AMQP_URL": "amqps://guest:guest@h/?no_verify_ssl=1"})
