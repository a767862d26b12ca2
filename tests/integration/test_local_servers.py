"""The private servers: durable, on 127.0.0.1 only, and with clear errors when they do not start."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import aio_pika
import pytest
import redis

from deploy.local import servers
from deploy.local.ports import HOST, is_free
from deploy.local.servers import RabbitMQ, Redis
from shared.errors import StartError
from tests.support.processes import until

LISTENING = "0A"
LOOPBACK = {"0100007F", "00000000000000000000000001000000"}
"""127.0.0.1 and ::1 as the kernel writes them on a little-endian machine."""


async def test_rabbitmq_has_its_data_after_a_crash(
    fresh_rabbit: Callable[..., RabbitMQ], tmp_path: Path
) -> None:
    server = fresh_rabbit()
    async with await aio_pika.connect(server.url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        await channel.declare_queue("kept", durable=True, arguments={"x-queue-type": "quorum"})
        assert _knows_queue(tmp_path, b"kept")
        message = aio_pika.Message(b"kept", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, "kept")
        server.kill()
        assert not server.is_alive()
    server.start()
    async with await aio_pika.connect(server.url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("kept", passive=True)
        received = await queue.get(no_ack=True)
    assert received is not None
    assert received.body == b"kept"


def test_redis_has_its_data_after_a_crash(fresh_redis: Callable[..., Redis]) -> None:
    server = fresh_redis()
    with redis.Redis.from_url(server.url) as client:
        client.set("kept", "kept")
    server.kill()
    server.start()
    with redis.Redis.from_url(server.url) as client:
        assert client.get("kept") == b"kept"


def test_rabbitmqctl_reaches_the_node(rabbit: RabbitMQ) -> None:
    assert rabbit.ctl("eval", "node().").strip() == rabbit.node


def test_all_listen_on_loopback_only(rabbit: RabbitMQ, redis_server: Redis) -> None:
    for server, ports in (
        (rabbit, {rabbit.port, rabbit.dist_port}),
        (rabbit.port_mapper, {rabbit.port_mapper.port}),
        (redis_server, {redis_server.port}),
    ):
        assert server.pid is not None
        listening = set(_listening(server.pid))
        assert {port for _, port in listening} == ports
        assert {address for address, _ in listening} <= LOOPBACK


@pytest.mark.parametrize("kind", ["rabbit", "redis_server"])
def test_a_paused_server_keeps_its_port_and_does_not_respond(
    request: pytest.FixtureRequest, kind: str
) -> None:
    server: RabbitMQ | Redis = request.getfixturevalue(kind)
    server.pause()
    try:
        assert not server.ready()
        assert server.is_alive()
        assert not is_free(server.port)
    finally:
        server.resume()
    assert until(server.ready)


def test_a_start_that_fails_shows_the_end_of_the_log(tmp_path: Path) -> None:
    server = Redis(tmp_path, arguments=("--no-such-setting", "1"))
    with pytest.raises(StartError, match="no-such-setting") as failure:
        server.start()
    assert str(server.log_path) in str(failure.value)


def test_a_rabbitmq_that_fails_shows_the_end_of_its_log(tmp_path: Path) -> None:
    server = RabbitMQ(tmp_path, config=("no.such.setting = 1",))
    try:
        with pytest.raises(StartError, match=r"no\.such\.setting") as failure:
            server.start()
    finally:
        server.stop()
    assert str(server.log_path) in str(failure.value)
    assert is_free(server.port_mapper.port)


def test_a_rabbitmq_that_failed_to_boot_is_an_error_though_it_still_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "RABBITMQ", tmp_path)
    command = tmp_path / "rabbitmq-server"
    command.write_text("#!/bin/sh\necho; echo BOOT FAILED; exec sleep 600\n")
    command.chmod(0o755)
    server = RabbitMQ(tmp_path)
    try:
        with pytest.raises(StartError, match="could not start"):
            server.start()
    finally:
        server.stop()


def test_without_the_name_localhost_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object) -> None:
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(StartError, match="/etc/hosts"):
        RabbitMQ(tmp_path).prepare()


def test_the_error_of_a_taken_port_says_so(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as other:
        server = Redis(tmp_path, port=other.getsockname()[1])
        with pytest.raises(StartError, match=f"port {server.port} is taken"):
            server.start()


def test_another_redis_on_the_port_does_not_look_like_this_one(
    redis_server: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two `make run` that start at the same time may choose the same port."""
    monkeypatch.setattr(servers, "is_free", lambda _: True)
    with pytest.raises(StartError, match="ended at once"):
        Redis(tmp_path, port=redis_server.port).start()


def test_a_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys\n"
        "from deploy.local.servers import Redis\n"
        "server = Redis(pathlib.Path(sys.argv[1]))\n"
        "server.start()\n"
        "print(server.port, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        assert not is_free(port)
        os.kill(parent.pid, signal.SIGKILL)
    assert until(lambda: is_free(port))


def _knows_queue(directory: Path, name: bytes) -> bool:
    """Wait until the node has stored on disk that this quorum queue exists.

    RabbitMQ 3.10 writes that down about half a second after it says that the queue is there.
    Killed in between, it comes back with a queue that never gets a leader.
    """
    names = next(directory.glob("*/data/*/quorum/*/names.dets"))
    return until(lambda: name in names.read_bytes())


def _listening(pid: int) -> Iterator[tuple[str, int]]:
    """Address and port of each socket on which a process listens, from the kernel's tables."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        target = str(descriptor.readlink())
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == LISTENING and inode in inodes:
                address, port = local.split(":")
                yield address, int(port, 16)
