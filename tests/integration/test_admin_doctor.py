"""`mms-admin doctor` on real servers: a healthy site, and one that is broken in known ways."""

import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import aio_pika
import msgspec
import pytest

from deploy.local.ports import free_port
from deploy.local.servers import RabbitMQ, Redis
from deploy.local.services import command
from shared import topology
from shared.broker import open_session
from shared.settings import Bytes, Settings
from tests.doctor import Examined
from tests.processes import Processes, environment, until
from workers.admin.doctor.finding import Finding, State

README = (Path(__file__).parents[2] / "deploy" / "README.md").read_text()


@pytest.fixture
async def declared(settings: Settings) -> Settings:
    """Settings for servers on which everything is declared."""
    session = await open_session(settings, name="test")
    await session.close()
    return settings


def test_a_healthy_site(settings: Settings, processes: Processes) -> None:
    processes.start_worker(settings)
    examined = Examined(settings)
    assert examined.wrong == []
    assert examined.status == 0
    assert examined["workers"].found == "1 consumer, 0 batches waiting"
    for name in topology.QUEUES:
        assert examined[f"queue {name}"] == Finding(f"queue {name}", State.OK, "answers")
    for check in ("topology", "rabbitmq permissions", "redis permissions", "redis appendfsync"):
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


async def test_nobody_consumes_and_letters_wait(
    declared: Settings, amqp: aio_pika.abc.AbstractChannel
) -> None:
    exchange = await amqp.get_exchange(topology.DEAD)
    await exchange.publish(aio_pika.Message(b"a letter"), "")
    examined = Examined(declared)
    assert examined.status == 1
    assert examined.wrong == ["workers"]
    assert "mms-worker" in examined["workers"].advice
    assert examined["dead letters"].state is State.WARNING
    queue = await amqp.get_queue(topology.DEAD)
    assert queue.declaration_result.message_count == 1, "what was taken was given back"


async def test_a_queue_is_gone_or_differs(
    declared: Settings, amqp: aio_pika.abc.AbstractChannel
) -> None:
    other = msgspec.structs.replace(declared, delivery_limit=7)
    assert "x-delivery-limit" in Examined(other)["topology"].found
    await amqp.queue_delete(topology.ARCHIVE)
    assert Examined(declared)["topology"].found == f"gone: {topology.ARCHIVE}"


async def test_a_user_without_rights(declared: Settings, rabbit: RabbitMQ) -> None:
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


async def test_the_rights_that_the_readme_gives_are_enough(
    settings: Settings, rabbit: RabbitMQ, processes: Processes
) -> None:
    line = next(line for line in README.splitlines() if "set_permissions" in line)
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


async def test_a_queue_without_a_leader(
    settings: Settings, fresh_rabbit: Callable[..., RabbitMQ]
) -> None:
    """As RabbitMQ 3.10.8 comes back when it is killed just after a queue's first declaration."""
    server = fresh_rabbit()
    mine = msgspec.structs.replace(settings, amqp_url=server.url)
    session = await open_session(mine, name="test")
    await session.close()
    server.ctl("eval", f"ra:stop_server(quorum_queues, {{'%2F_{topology.DEAD}', node()}}).")
    server.ctl("eval", f"sys:suspend(whereis('%2F_{topology.STATE_QUEUE}')).")
    examined = Examined(mine)
    for name in (topology.DEAD, topology.STATE_QUEUE):
        found = examined[f"queue {name}"]
        assert found.state is State.WRONG
        assert "no leader" in found.found
        assert f"delete_queue {name}" in found.advice
    assert examined[f"queue {topology.ARCHIVE}"].state is State.OK


def test_a_redis_that_forgets(settings: Settings, fresh_redis: Callable[..., Redis]) -> None:
    careless = ("--appendfsync", "everysec", "--maxmemory", "64mb")
    policy = ("--maxmemory-policy", "volatile-lru")
    server = fresh_redis(arguments=(*careless, *policy))
    examined = Examined(msgspec.structs.replace(settings, redis_url=server.url))
    assert examined.wrong == ["redis appendfsync", "redis eviction"]
    assert "CONFIG SET appendfsync always" in examined["redis appendfsync"].advice


def test_nobody_is_there(settings: Settings, tmp_path: Path) -> None:
    nowhere = msgspec.structs.replace(
        settings,
        amqp_url=f"amqp://guest:secret-word@127.0.0.1:{free_port()}/",
        redis_url=f"redis://127.0.0.1:{free_port()}/0",
        spool_path=str(tmp_path / "spool.db"),
        spool_max_bytes=Bytes(2**60),
    )
    examined = Examined(nowhere)
    assert examined.status == 1
    assert examined["redis"].state is State.WRONG
    assert "spool disk space" in examined.wrong
    assert not any("secret-word" in each.found for each in examined.findings)


def test_settings_that_cannot_be_read(settings: Settings) -> None:
    examined = Examined(settings, MMS_MAX_BODY="much")
    assert examined.wrong == ["settings"]
    assert "MMS_MAX_BODY" in examined["settings"].found
