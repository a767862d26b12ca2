"""RabbitMQ: there, new enough, may we, is the topology ours, how much waits, who consumes.

Nothing is changed: rights are tried by removing bindings that do not exist and on a queue of our
own, streams are read from their end, and no message is taken from a queue, because taking one and
returning it counts as a delivery. So a quorum queue without a leader looks like an empty one here;
the processes that use it say so in their readiness.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import aio_pika
import aiormq
import msgspec
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import (
    AMQPError,
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ConnectionInternalError,
)
from pamqp.commands import Basic
from yarl import URL

from shared.errors import TopologyConflictError
from shared.process.cli import counted
from shared.rabbitmq import topology
from shared.rabbitmq.session import with_options
from shared.settings.settings import Settings
from workers.admin.doctor.finding import (
    CALL_LIMIT,
    UNTRUSTED,
    Finding,
    at_least,
    judged,
    ok,
    reason,
    warning,
    wrong,
)

OLDEST: Final = (3, 10)
MANY: Final = 10_000
"""Batches in the input queue that deserve a look."""

_GONE: Final = "mms-admin doctor looks whether it may"
"""A routing key that no binding has."""

_RIGHTS: Final = (
    "rabbitmqctl set_permissions -p <vhost> <user> '^(mms\\.|amq\\.gen)'"
    " '^(mms\\.|amq\\.(gen|default))' '^(mms\\.|amq\\.gen)'"
)
ANEW: Final = (
    "RabbitMQ 3.10 can come back like this when it is killed within a second of the queue's first"
    " declaration, and so does a cluster that has lost most of its nodes: start them. If all nodes"
    " run, delete the queue (`rabbitmqctl delete_queue {queue}`, what is in it is lost); every"
    " process declares it anew within seconds, and `mms-admin rebuild` brings the state back."
)
_BROKEN: Final = (TimeoutError, OSError, RuntimeError, AMQPError, ValueError)

LETTER: Final = 4096
"""Bytes that a dead letter may take beside its body."""

NEARLY: Final = 0.8
"""Share of the limit of the dead letters that deserves a look."""

Step = Callable[[AbstractChannel], Awaitable[object]]


async def check_rabbitmq(settings: Settings) -> AsyncIterator[Finding]:
    """Every node that `MMS_AMQP_URL` names, then on one that answers all that they share."""
    answered = None
    for text in settings.amqp_url.split(","):
        url = with_options(URL(text.strip()), settings)
        where = f"{url.host}:{url.explicit_port or (5671 if url.scheme == 'amqps' else 5672)}"
        try:
            async with _connected(url) as connection:
                yield _version(where, connection)
        except _BROKEN as error:
            yield wrong(f"rabbitmq {where}", reason(error), _unreachable(error))
        else:
            answered = url
    if answered is None:
        return
    there: list[str] = []
    async with _connected(answered) as connection:
        async for finding in _shared(connection, settings, there):
            yield finding
    for name in there:
        yield await _stream_answers(answered, name)


async def _shared(
    connection: AbstractConnection, settings: Settings, names: list[str]
) -> AsyncIterator[Finding]:
    """What is the same on every node; `names` gets the streams that are there."""
    yield await _publishes(connection)
    there: dict[str, tuple[int, int]] = {}
    missing: list[str] = []
    for name in topology.QUEUES:
        try:
            there[name] = await _counts(connection, name)
        except ChannelNotFoundEntity:
            missing.append(name)
        except _BROKEN as error:
            yield wrong(f"queue {name}", f"cannot be looked at: {reason(error)}", _advice(error))
    for name in topology.EXCHANGES:
        try:
            await _on_channel(connection, _exchange_there(name))
        except ChannelNotFoundEntity:
            missing.append(f"exchange {name}")
        except _BROKEN as error:
            yield wrong(f"exchange {name}", f"cannot be looked at: {reason(error)}", _advice(error))
    if not there:
        yield warning(
            "topology",
            "nothing is declared yet",
            "Whichever mms-ingest or mms-worker comes first declares all of it: start one.",
        )
        return
    if missing:
        yield wrong(
            "topology",
            f"gone: {', '.join(missing)}",
            "Start any mms-ingest or mms-worker; it declares what is gone within seconds. If it"
            " does not, its log says why.",
        )
    else:
        yield await _declared(connection, settings)
    yield await _rights(connection)
    for finding in _depths(there, settings):
        yield finding
    names.extend(name for name in there if name in topology.STREAMS)


async def _publishes(connection: AbstractConnection) -> Finding:
    """A queue of our own, a message into it, confirmed, and both gone with the channel."""
    name = f"mms.doctor.{secrets.token_hex(4)}"

    async def step(channel: AbstractChannel) -> None:
        await channel.confirm_delivery()
        await channel.queue_declare(name, exclusive=True, auto_delete=True)
        try:
            await channel.basic_publish(
                b"", routing_key=name, properties=Basic.Properties(expiration="1000")
            )
        finally:
            await channel.queue_delete(name)

    try:
        await _on_channel(connection, step)
    except TimeoutError:
        return wrong(
            "rabbitmq takes messages",
            f"no confirm within {CALL_LIMIT:g} s",
            "A memory or disk alarm blocks publishers: see `rabbitmq-diagnostics alarms`.",
        )
    except _BROKEN as error:
        return wrong("rabbitmq takes messages", reason(error), _advice(error))
    return ok("rabbitmq takes messages", "a message was confirmed")


async def _declared(connection: AbstractConnection, settings: Settings) -> Finding:
    """Compare what is there with what we would declare.

    Nothing changes: all of it is there, and nothing is bound.
    """
    try:
        await topology.declare(connection, settings, bind=False)
    except TopologyConflictError as error:
        return wrong("topology", str(error), "See what it says; a worker does not start like this.")
    except _BROKEN as error:
        return wrong("topology", f"cannot be compared: {reason(error)}", _advice(error))
    return ok("topology", "exchanges, queues and streams are as declared")


def _exchange_there(name: str) -> Step:
    """Ask whether an exchange is there, without declaring it.

    Raises:
        ChannelNotFoundEntity: it is not.
    """

    async def step(channel: AbstractChannel) -> None:
        await channel.exchange_declare(name, passive=True)

    return step


async def _rights(connection: AbstractConnection) -> Finding:
    """To remove a binding takes write on its destination and read on its source."""

    async def step(channel: AbstractChannel) -> None:
        for source, destination in (
            (topology.EVENTS, topology.POSTBACKS),
            (topology.POSTBACKS, topology.EVENTS),
            (topology.POSTBACKS, topology.DEAD),
        ):
            await channel.exchange_unbind(destination, source, _GONE)

    try:
        await _on_channel(connection, step)
    except _BROKEN as error:
        return wrong("rabbitmq permissions", reason(error), _advice(error))
    return ok("rabbitmq permissions", "configure, write and read are granted")


async def _stream_answers(url: URL, name: str) -> Finding:
    """Whether a stream lets itself be read, which takes nothing out of it.

    One that is broken can take the connection with it, so each gets its own.
    """
    check = f"queue {name}"
    try:
        async with _connected(url) as connection:
            await _on_channel(connection, lambda channel: _read_stream(channel, name))
    except ChannelLockedResource:
        return ok(check, "somebody has it to themselves now")
    except (TimeoutError, ConnectionInternalError) as error:
        return wrong(check, f"has no leader: {reason(error)}", ANEW.format(queue=name))
    except _BROKEN as error:
        return wrong(check, reason(error), _advice(error))
    return ok(check, "answers")


async def _read_stream(channel: AbstractChannel, name: str) -> None:
    async def ignore(_message: DeliveredMessage) -> None:
        """Nothing comes: we read from where the stream ends."""

    await channel.basic_qos(prefetch_count=1)
    await channel.basic_consume(name, ignore, arguments={"x-stream-offset": "next"})


def _depths(there: dict[str, tuple[int, int]], settings: Settings) -> "list[Finding]":
    findings = []
    batches, consumers = there.get(topology.STATE_QUEUE, (0, 1))
    advice = "Start mms-worker, more of them if they run; see their /readyz and Redis."
    found = f"{counted(consumers, 'consumer')}, {counted(batches, 'batch', 'batches')} waiting"
    if consumers and batches > MANY:
        workers = warning("workers", found, advice)
    else:
        workers = judged("workers", found, good=consumers > 0, advice=advice)
    findings.append(msgspec.structs.replace(workers, follows=("redis", "rabbitmq", "topology")))
    letters, _ = there.get(topology.DEAD, (0, 0))
    if letters * (settings.max_body + LETTER) > NEARLY * settings.queue_max_bytes:
        found = f"{letters}, which may be near the limit (MMS_QUEUE_MAX_BYTES)"
        advice = (
            "Make room with `mms-admin dead export` and `dead purge`; full, it drops its oldest."
        )
        findings.append(warning("dead letters", found, advice))
    elif letters:
        advice = "See them with `mms-admin dead list`."
        findings.append(warning("dead letters", f"{letters} waiting for people", advice))
    else:
        findings.append(ok("dead letters", "none"))
    return findings


async def _counts(connection: AbstractConnection, name: str) -> tuple[int, int]:
    """How many messages and consumers a queue has.

    Raises:
        ChannelNotFoundEntity: there is no such queue.
    """
    counts = 0, 0

    async def step(channel: AbstractChannel) -> None:
        nonlocal counts
        declared = await channel.queue_declare(name, passive=True)
        if declared is not None:
            counts = declared.message_count or 0, declared.consumer_count or 0

    await _on_channel(connection, step)
    return counts


async def _on_channel(connection: AbstractConnection, step: Step) -> None:
    """Do a step on a channel of its own: RabbitMQ closes the channel on which something fails."""
    async with asyncio.timeout(CALL_LIMIT):
        opened = await connection.channel(publisher_confirms=False)
        channel = await opened.get_underlay_channel()
        await step(channel)
        with contextlib.suppress(*_BROKEN):
            await opened.close()


@contextlib.asynccontextmanager
async def _connected(url: URL) -> AsyncIterator[AbstractConnection]:
    async with asyncio.timeout(CALL_LIMIT):
        connection = await aio_pika.connect(url, timeout=CALL_LIMIT)
    try:
        yield connection
    finally:
        with contextlib.suppress(*_BROKEN):
            async with asyncio.timeout(CALL_LIMIT):
                await connection.close()


def _version(where: str, connection: AbstractConnection) -> Finding:
    transport = connection.transport
    properties = transport.connection.server_properties if transport else {}
    said = properties.get("version", "?")
    version = said.decode() if isinstance(said, bytes) else str(said)
    return judged(
        f"rabbitmq {where}",
        f"version {version}",
        good=at_least(version, OLDEST),
        advice=f"Upgrade to {OLDEST[0]}.{OLDEST[1]} or newer: streams and the safe dead-lettering"
        " of quorum queues need it.",
    )


def _advice(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "A queue without a leader or a server that hangs: see RabbitMQ's log."
    if isinstance(error, ChannelAccessRefused):
        return f"Give the user its rights: {_RIGHTS}"
    return "See RabbitMQ's log."


def _unreachable(error: BaseException) -> str:
    text = str(error)
    if "certificate" in text.lower():
        return UNTRUSTED
    if isinstance(error, aiormq.exceptions.AuthenticationError) or "ACCESS_REFUSED" in text:
        return "Correct user and password in MMS_AMQP_URL; `guest` may log in on loopback only."
    if "vhost" in text:
        return "Make the virtual host (`rabbitmqctl add_vhost`), or correct the URL's path."
    return "See that it runs and that MMS_AMQP_URL is right; see its log."
