"""`mms-admin doctor` on real servers: a healthy installation, and one with known faults."""

import asyncio
import contextlib
import os
import shlex
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import aio_pika
import msgspec
import pytest

from deploy.local.ports import free_port
from deploy.local.servers import RabbitMQ, Redis
from deploy.local.services import command
from shared.rabbitmq import topology
from shared.rabbitmq.session import open_session
from shared.settings.settings import Settings
from shared.settings.units import Bytes
from tests.support.doctor import Examined
from tests.support.processes import Processes, environment, until
from workers.admin.doctor.command import CHECK_LIMIT
from workers.admin.doctor.finding import Finding, State
from workers.admin.doctor.redis_checks import RIGHTS

BODY = b'{"origin":"MMS_MT","code":"N101","tracking-id":"T-1","status":"Message Sent"}'
DEPLOYMENT = (Path(__file__).parents[2] / "deploy" / "docs" / "deployment.md").read_text()


@pytest.fixture
async def declared(settings: Settings) -> Settings:
    """Settings for servers on which everything is declared."""
    session = await open_session(settings, name="test")
    await session.close()
    return settings


def test_nothing_is_wrong_with_a_healthy_installation(
    settings: Settings, processes: Processes
) -> None:
    processes.start_worker(settings)
    examined = Examined(settings)
    assert examined.wrong == []
    assert examined.status == 0
    assert examined["workers"].found == "1 consumer, 0 batches waiting"
    for name in topology.STREAMS:
        assert examined[f"queue {name}"] == Finding(f"queue {name}", State.OK, "answers")
    for check in (
        "topology",
        "rabbitmq permissions",
        "redis permissions",
        "redis appendfsync",
        "redis records",
    ):
        assert examined[check].state is State.OK


def test_the_table_says_what_to_do(settings: Settings) -> None:
    done = subprocess.run(
        (command("mms-admin"), "doctor"),
        env=os.environ | environment(settings) | {"MMS_SPOOL_PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "nothing is declared yet" in done.stdout
    assert "start one" in done.stderr
    assert "Set MMS_SPOOL_PATH" in done.stderr
    assert "nothing is wrong" in done.stderr
    assert done.returncode == 0


async def test_no_consumer_is_wrong_and_a_dead_letter_is_a_warning(
    declared: Settings, amqp: aio_pika.abc.AbstractChannel
) -> None:
    exchange = await amqp.get_exchange(topology.DEAD)
    await exchange.publish(aio_pika.Message(b"a body"), "")
    examined = Examined(declared)
    assert examined.status == 1
    assert examined.wrong == ["workers"]
    assert "mms-worker" in examined["workers"].advice
    assert examined["dead letters"].state is State.WARNING


async def test_the_doctor_delivers_no_message(
    settings: Settings, amqp: aio_pika.abc.AbstractChannel
) -> None:
    """Every delivery counts towards the limit, after which a good batch is a dead letter."""
    limited = msgspec.structs.replace(settings, delivery_limit=2)
    await (await open_session(limited, name="test")).close()
    for exchange in (topology.POSTBACKS, topology.DEAD):
        await (await amqp.get_exchange(exchange)).publish(aio_pika.Message(b"waits"), "")
    for _ in range(3):
        assert Examined(limited)["topology"].state is State.OK
    for name in (topology.STATE_QUEUE, topology.DEAD):
        message = await (await amqp.get_queue(name)).get(no_ack=True)
        assert not message.redelivered
        assert not message.headers.get("x-delivery-count")


async def test_a_missing_queue_and_a_different_queue_are_wrong(
    declared: Settings, amqp: aio_pika.abc.AbstractChannel
) -> None:
    other = msgspec.structs.replace(declared, delivery_limit=7)
    assert "x-delivery-limit" in Examined(other)["topology"].found
    await amqp.queue_delete(topology.ARCHIVE)
    assert Examined(declared)["topology"].found == f"missing: {topology.ARCHIVE}"


async def test_a_missing_exchange_is_reported_and_not_declared(
    declared: Settings, amqp: aio_pika.abc.AbstractChannel
) -> None:
    await amqp.exchange_delete(topology.EVENTS)
    missing = f"missing: exchange {topology.EVENTS}"
    for _ in range(2):  # the first run has not declared it
        finding = Examined(declared)["topology"]
        assert (finding.state, finding.found) == (State.WRONG, missing)


async def test_a_user_without_rights_is_wrong(declared: Settings, rabbit: RabbitMQ) -> None:
    rabbit.ctl("add_user", "reader", "secret-word")
    rabbit.ctl("set_permissions", "reader", "^mms", "", "^mms")
    try:
        url = declared.amqp_url.replace("guest:guest", "reader:secret-word")
        examined = Examined(msgspec.structs.replace(declared, amqp_url=url))
        assert "rabbitmq permissions" in examined.wrong
        assert "set_permissions" in examined["rabbitmq permissions"].advice
        assert not any("secret-word" in each.found for each in examined.findings)
        rabbit.ctl("change_password", "reader", "another")
        refused = Examined(msgspec.structs.replace(declared, amqp_url=url))
    finally:
        rabbit.ctl("delete_user", "reader")
    assert "user and password" in next(each for each in refused.findings if each.advice).advice


async def test_the_rights_in_the_readme_are_enough(
    settings: Settings, rabbit: RabbitMQ, processes: Processes
) -> None:
    line = next(line for line in DEPLOYMENT.splitlines() if "set_permissions" in line)
    _, *arguments = shlex.split(line)
    rabbit.ctl("add_user", "mms", "word")
    rabbit.ctl(*arguments)
    url = settings.amqp_url.replace("guest:guest", "mms:word")
    mine = msgspec.structs.replace(settings, amqp_url=url)
    try:
        processes.start_worker(mine)
        ingress = processes.start_ingest(mine)
        assert until(lambda: "rabbitmq: ok" in ingress.ask("/readyz")[1])
        assert Examined(mine).wrong == []
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(exclusive=True)  # as `mms-admin events` does
            await queue.bind(topology.EVENTS, "#")
        assert "ACCESS_REFUSED" not in ingress.log()
    finally:
        processes.stop()
        rabbit.ctl("delete_user", "mms")


async def test_a_process_reports_a_queue_without_a_leader(
    settings: Settings, fresh_rabbit: Callable[..., RabbitMQ], processes: Processes
) -> None:
    """As after RabbitMQ 3.10.8 was killed just after a queue's first declaration.

    The doctor would have to read a message to see it, so the processes report it.
    """
    server = fresh_rabbit()
    mine = msgspec.structs.replace(settings, amqp_url=server.url)
    ingress = processes.start_ingest(mine)
    assert until(lambda: ingress.ask("/readyz") == (200, ingress.ask("/readyz")[1]))
    server.ctl("eval", f"sys:suspend(whereis('%2F_{topology.STATE_QUEUE}')).")
    await asyncio.to_thread(_post, mine.ingest_port)
    address = f"127.0.0.1:{ingress.admin_port}"
    found = Examined(mine, arguments=("--process", address))[f"process {address}"]
    assert found.state is State.WARNING
    assert "rabbitmq: degraded" in found.found
    assert "leader" in found.advice


def _post(port: int) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/postbacks", data=BODY)
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


def test_a_redis_that_is_not_durable_is_wrong(
    settings: Settings, fresh_redis: Callable[..., Redis]
) -> None:
    careless = ("--appendfsync", "everysec", "--maxmemory", "64mb")
    policy = ("--maxmemory-policy", "volatile-lru")
    server = fresh_redis(arguments=(*careless, *policy))
    examined = Examined(msgspec.structs.replace(settings, redis_url=server.url))
    assert examined.wrong == ["redis appendfsync", "redis eviction"]
    assert "CONFIG SET appendfsync always" in examined["redis appendfsync"].advice


def test_a_redis_that_does_not_keep_records_in_one_block_has_a_warning(
    settings: Settings, fresh_redis: Callable[..., Redis]
) -> None:
    server = fresh_redis(arguments=("--hash-max-listpack-value", "64"))
    examined = Examined(msgspec.structs.replace(settings, redis_url=server.url))
    assert examined["redis records"].state is State.WARNING
    assert "CONFIG SET hash-max-listpack-value 1024" in examined["redis records"].advice


def test_unavailable_servers_and_a_full_disk_are_wrong(settings: Settings, tmp_path: Path) -> None:
    nowhere = msgspec.structs.replace(
        settings,
        amqp_url=f"amqp://guest:secret-word@127.0.0.1:{free_port()}/",
        redis_url=f"redis://127.0.0.1:{free_port()}/0",
        spool_path=str(tmp_path / "spool.db"),
        spool_max_bytes=Bytes(8 * 2**40),  # no disk here has so much
    )
    examined = Examined(nowhere)
    assert examined.status == 1
    assert examined["redis"].state is State.WRONG
    assert "spool disk space" in examined.wrong
    assert not any("secret-word" in each.found for each in examined.findings)


def test_invalid_settings_are_the_only_finding(settings: Settings) -> None:
    examined = Examined(settings, MMS_MAX_BODY="much")
    assert examined.wrong == ["settings"]
    assert "MMS_MAX_BODY" in examined["settings"].found


def test_a_redis_user_needs_only_the_rights_of_a_worker(
    settings: Settings, redis_server: Redis, processes: Processes
) -> None:
    limited = settings.redis_url.replace("redis://", "redis://limited:word@")
    mine = msgspec.structs.replace(settings, redis_url=limited)
    assert redis_server.ask(f"ACL SETUSER limited on >word {RIGHTS}\r\n".encode()) == b"+OK\r\n"
    try:
        processes.start_worker(mine)
        assert Examined(mine).wrong == []
        strict = "resetkeys -@all ~mms:* +hset +hget +hgetall +hkeys +hdel +hincrby +expire +set"
        strict += " +get +type +del +zadd +zremrangebyrank +evalsha +script|load +ping +select"
        strict += " +client"
        assert redis_server.ask(f"ACL SETUSER limited {strict}\r\n".encode()) == b"+OK\r\n"
        examined = Examined(mine)
        assert examined.wrong == []
        assert examined["redis clock"].state is State.WARNING
        assert redis_server.ask(b"ACL SETUSER limited -hset\r\n") == b"+OK\r\n"
        examined = Examined(mine)
        assert examined.wrong == ["redis permissions"]
        assert RIGHTS in examined["redis permissions"].advice
    finally:
        processes.stop()
        redis_server.ask(b"ACL DELUSER limited\r\n")


def test_the_cause_comes_before_its_effects(
    settings: Settings, fresh_redis: Callable[..., Redis], processes: Processes
) -> None:
    redis = fresh_redis()
    mine = msgspec.structs.replace(settings, redis_url=redis.url)
    worker, ingress = processes.start_worker(mine), processes.start_ingest(mine)
    ports = [each.admin_port for each in (worker, ingress)]
    named = [f"127.0.0.1:{port}" for port in (*ports, free_port())]
    examined = Examined(mine, MMS_PROCESSES=",".join(named))
    assert examined.wrong == [f"process {named[2]}"], "the other two are ready"
    assert examined[f"spooled at {named[1]}"].found == "nothing"
    redis.kill()
    _post(mine.ingest_port)
    assert until(lambda: worker.ask("/readyz")[0] == 503, within=60)
    examined = Examined(mine, arguments=("--process", named[0], "--process", named[1]))
    assert examined.wrong[0] == "redis"
    assert set(examined.wrong) <= {"redis", "workers", f"process {named[0]}"}
    assert f"process {named[0]}" in examined.wrong
    assert examined[f"process {named[0]}"].advice.startswith("Repair redis first")
    assert "workers" not in examined.wrong or "redis" in examined["workers"].advice


def test_a_spool_on_another_machine_is_wrong(settings: Settings) -> None:
    examined = Examined(settings, arguments=("--spool", "/nowhere/*/spool.db"))
    assert examined.wrong == ["spool /nowhere/*/spool.db"]
    assert "another machine cannot be read" in examined["spool /nowhere/*/spool.db"].advice


@pytest.mark.parametrize("address", ["nothing", "a:b", ":9090", "x:0", "x:70000", "::1:9090"])
def test_an_invalid_address_is_a_usage_error(settings: Settings, address: str) -> None:
    done = subprocess.run(
        (command("mms-admin"), "doctor", "--process", address),
        env=os.environ | environment(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "host:port" in done.stderr or "port" in done.stderr
    assert "Traceback" not in done.stderr


def test_frozen_servers_are_wrong_after_the_time_limit(
    settings: Settings, rabbit: RabbitMQ, redis_server: Redis, processes: Processes
) -> None:
    ingress = processes.start_ingest(settings)
    for each in (ingress, rabbit, redis_server):
        each.pause()
    try:
        address = f"127.0.0.1:{ingress.admin_port}"
        examined = Examined(settings, arguments=("--process", address))
    finally:
        for each in (ingress, rabbit, redis_server):
            each.resume()
    names = {"redis", f"rabbitmq 127.0.0.1:{rabbit.port}", f"process {address}"}
    assert set(examined.wrong) == names
    for name in names:
        assert examined[name].found != "TimeoutError"
        assert "5 s" in examined[name].found or "imeout" in examined[name].found


HOSTILE = {
    "says nothing": b"",
    "an SSH server": b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
    "an HTTP server": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes",
    "endless headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000,
    "bytes": bytes(range(256)) * 64,
    "a huge reply of Redis": b"*99999999\r\n$99999999999\r\n",
    "a frame of AMQP": b"\x01\x00\x00\xff\xff\xff\xff" + b"\x00" * 4096,
    "a batch of zeros": b"\x00" * 70_000,
}


@contextlib.contextmanager
def saying(answer: bytes, *, close: bool) -> Iterator[int]:
    """The port of a server that sends this to each client, and then closes or keeps connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as connections:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connection.settimeout(1)
                    with contextlib.suppress(OSError):
                        connection.recv(64)
                        connection.sendall(answer)
                    if close:
                        connection.close()
                    else:
                        connections.enter_context(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_server_of_another_kind_is_wrong(settings: Settings, name: str) -> None:
    with saying(HOSTILE[name], close=len(name) % 2 == 0) as port:
        elsewhere = msgspec.structs.replace(
            settings,
            amqp_url=f"amqp://guest:secret-word@127.0.0.1:{port}/",
            redis_url=f"redis://:secret-word@127.0.0.1:{port}/0",
        )
        began = time.monotonic()
        examined = Examined(elsewhere, arguments=("--process", f"127.0.0.1:{port}"))
    assert time.monotonic() - began < CHECK_LIMIT + 15, "the bound that --help names"
    wanted = {"redis", "rabbitmq", "process"}
    assert {each.split()[0] for each in examined.wrong} == wanted
    assert not any("secret-word" in each.found for each in examined.findings)
