"""Queues, exchanges and streams in RabbitMQ: declared as ours, not too full, readable.

No message is read from a queue, because reading and returning a message counts as a delivery. So a
quorum queue without a leader looks empty here. The processes that use the queue report that in
their readiness. Streams are read from their end.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import ChannelLockedResource, ChannelNotFoundEntity, ConnectionInternalError
from yarl import URL

from shared.errors import TopologyConflictError
from shared.process.cli import counted
from shared.rabbitmq import topology
from shared.rabbitmq.errors import CONNECTION_ERRORS
from shared.settings.settings import Settings
from workers.admin.doctor.finding import Finding, judged, ok, reason, warning, wrong
from workers.admin.doctor.rabbitmq_calls import Step, advice, connected, on_channel

LONG_QUEUE: Final = 10_000
"""Batches in the input queue from which there is a warning."""

DEAD_LETTER_OVERHEAD: Final = 4096
"""Bytes that a dead letter may need in addition to its body."""

NEARLY_FULL: Final = 0.8
"""Share of the dead letters' limit from which there is a warning."""

_NO_LEADER: Final = (
    "RabbitMQ 3.10 can start like this when it was killed within a second of the queue's first"
    " declaration. A cluster that has lost most of its nodes is like this too: start them. If all"
    " nodes run, delete the queue (`rabbitmqctl delete_queue {queue}`; its messages are lost). The"
    " processes declare it again within seconds, and `mms-admin rebuild` restores the state."
)


class QueueCounts(NamedTuple):
    """How many messages and consumers a queue has."""

    messages: int
    consumers: int


Queues = Mapping[str, QueueCounts]
"""The queues and streams that exist, by name."""


class FoundTopology(NamedTuple):
    """The part of our topology that RabbitMQ has.

    Attributes:
        missing: names of queues, streams and exchanges that do not exist.
        unreadable: findings about those that RabbitMQ does not show.
    """

    queues: Queues
    missing: list[str]
    unreadable: list[Finding]


async def look_at_topology(connection: AbstractConnection) -> FoundTopology:
    """Look for all of our queues, streams and exchanges, without declaring any."""
    queues: dict[str, QueueCounts] = {}
    missing: list[str] = []
    unreadable: list[Finding] = []
    for name in topology.QUEUES:
        try:
            queues[name] = await _count(connection, name)
        except ChannelNotFoundEntity:
            missing.append(name)
        except CONNECTION_ERRORS as error:
            unreadable.append(_unreadable(f"queue {name}", error))
    for name in topology.EXCHANGES:
        try:
            await on_channel(connection, _look_for_exchange(name))
        except ChannelNotFoundEntity:
            missing.append(f"exchange {name}")
        except CONNECTION_ERRORS as error:
            unreadable.append(_unreadable(f"exchange {name}", error))
    return FoundTopology(queues, missing, unreadable)


def nothing_declared() -> Finding:
    """The finding when RabbitMQ has none of our queues and streams, as before the first start."""
    return warning(
        "topology",
        "nothing is declared yet",
        "The first mms-ingest or mms-worker declares everything: start one.",
    )


async def compare_topology(
    connection: AbstractConnection, settings: Settings, missing: list[str]
) -> Finding:
    """Compare what exists with what our processes declare.

    If nothing is missing, everything is declared again, which changes nothing; bindings are not.
    """
    if missing:
        return wrong(
            "topology",
            f"missing: {', '.join(missing)}",
            "Start any mms-ingest or mms-worker; it declares what is missing within seconds. If it"
            " does not, its log says why.",
        )
    try:
        await topology.declare(connection, settings, bind=False)
    except TopologyConflictError as error:
        return wrong(
            "topology", str(error), "Remove the difference; until then no worker can start."
        )
    except CONNECTION_ERRORS as error:
        return wrong("topology", f"cannot be compared: {reason(error)}", advice(error))
    return ok("topology", "exchanges, queues and streams are as declared")


def check_workers(queues: Queues) -> Finding:
    """Whether workers consume, and whether they keep up."""
    batches, consumers = queues.get(topology.STATE_QUEUE, QueueCounts(0, 1))
    found = f"{counted(consumers, 'consumer')}, {counted(batches, 'batch', 'batches')} waiting"
    todo = "Start mms-worker, or more of them if some run; see their /readyz, and Redis."
    if consumers and batches > LONG_QUEUE:
        workers = warning("workers", found, todo)
    else:
        workers = judged("workers", found, good=consumers > 0, advice=todo)
    return msgspec.structs.replace(workers, follows=("redis", "rabbitmq", "topology"))


def check_dead_letters(queues: Queues, settings: Settings) -> Finding:
    """Whether dead letters wait, and whether their queue may be nearly full."""
    count, _ = queues.get(topology.DEAD, QueueCounts(0, 0))
    size = count * (settings.max_body + DEAD_LETTER_OVERHEAD)
    if size > NEARLY_FULL * settings.queue_max_bytes:
        return warning(
            "dead letters",
            f"{count}, which may be near the limit (MMS_QUEUE_MAX_BYTES)",
            "Make room with `mms-admin dead export` and `dead purge`. A full queue drops its oldest"
            " dead letters.",
        )
    if count:
        return warning("dead letters", f"{count} waiting", "See them with `mms-admin dead list`.")
    return ok("dead letters", "none")


async def check_stream(url: URL, name: str) -> Finding:
    """Whether a stream can be read, from its end.

    The connection is its own, because a broken stream can close it.
    """
    check = f"queue {name}"
    try:
        async with connected(url) as connection:
            await on_channel(connection, lambda channel: _read_stream(channel, name))
    except ChannelLockedResource:
        return ok(check, "has an exclusive consumer now")
    except (TimeoutError, ConnectionInternalError) as error:
        return wrong(check, f"has no leader: {reason(error)}", _NO_LEADER.format(queue=name))
    except CONNECTION_ERRORS as error:
        return wrong(check, reason(error), advice(error))
    return ok(check, "answers")


async def _read_stream(channel: AbstractChannel, name: str) -> None:
    async def ignore(_message: DeliveredMessage) -> None:
        """Do nothing: reading begins at the end of the stream."""

    await channel.basic_qos(prefetch_count=1)
    await channel.basic_consume(name, ignore, arguments={"x-stream-offset": "next"})


def _look_for_exchange(name: str) -> Step:
    """The step that looks for an exchange. It raises `ChannelNotFoundEntity` if there is none."""

    async def step(channel: AbstractChannel) -> None:
        await channel.exchange_declare(name, passive=True)

    return step


async def _count(connection: AbstractConnection, name: str) -> QueueCounts:
    """Raises: ChannelNotFoundEntity: there is no such queue."""
    counts = QueueCounts(0, 0)

    async def step(channel: AbstractChannel) -> None:
        nonlocal counts
        declared = await channel.queue_declare(name, passive=True)
        if declared is not None:
            counts = QueueCounts(declared.message_count or 0, declared.consumer_count or 0)

    await on_channel(connection, step)
    return counts


def _unreadable(check: str, error: BaseException) -> Finding:
    return wrong(check, f"cannot be read: {reason(error)}", advice(error))
