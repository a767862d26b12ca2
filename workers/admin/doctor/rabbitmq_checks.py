"""RabbitMQ: whether each node answers and is new enough, accepts messages, and grants the rights.

The checks change nothing. The rights are tried by removing bindings that do not exist, and a
message is published to a queue of our own.
"""

import secrets
from collections.abc import AsyncIterator
from typing import Final

import aiormq
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel
from pamqp.commands import Basic
from yarl import URL

from shared.rabbitmq import topology
from shared.rabbitmq.connection import with_options
from shared.rabbitmq.errors import CONNECTION_ERRORS
from shared.settings.settings import Settings
from workers.admin.doctor.finding import (
    CALL_LIMIT,
    UNTRUSTED,
    Finding,
    at_least,
    judged,
    ok,
    reason,
    wrong,
)
from workers.admin.doctor.rabbitmq_calls import advice, connected, on_channel
from workers.admin.doctor.topology_checks import (
    check_dead_letters,
    check_stream,
    check_workers,
    compare_topology,
    look_at_topology,
    nothing_declared,
)

OLDEST: Final = (3, 10)

_UNUSED_KEY: Final = "mms-admin doctor looks whether it may"
"""A routing key that no binding has."""


async def check_rabbitmq(settings: Settings) -> AsyncIterator[Finding]:
    """Check each node in `MMS_AMQP_URL`, then on one node that answers what all nodes share."""
    answering = None
    for text in settings.amqp_url.split(","):
        url = with_options(URL(text.strip()), settings)
        name = f"{url.host}:{url.explicit_port or (5671 if url.scheme == 'amqps' else 5672)}"
        try:
            async with connected(url) as connection:
                yield _version(name, connection)
        except CONNECTION_ERRORS as error:
            yield wrong(f"rabbitmq {name}", reason(error), _connect_advice(error))
        else:
            answering = url
    if answering is None:
        return
    async with connected(answering) as connection:
        yield await _publishing(connection)
        found = await look_at_topology(connection)
        for finding in found.unreadable:
            yield finding
        if not found.queues:
            yield nothing_declared()
            return
        yield await compare_topology(connection, settings, found.missing)
        yield await _permissions(connection)
        yield check_workers(found.queues)
        yield check_dead_letters(found.queues, settings)
    for name in topology.STREAMS:
        if name in found.queues:
            yield await check_stream(answering, name)


async def _publishing(connection: AbstractConnection) -> Finding:
    """Publish a message to a queue of our own, wait for the confirm, delete the queue."""
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

    check = "rabbitmq accepts messages"
    try:
        await on_channel(connection, step)
    except TimeoutError:
        return wrong(
            check,
            f"no confirm within {CALL_LIMIT:g} s",
            "A memory or disk alarm blocks publishers: see `rabbitmq-diagnostics alarms`.",
        )
    except CONNECTION_ERRORS as error:
        return wrong(check, reason(error), advice(error))
    return ok(check, "a message was confirmed")


async def _permissions(connection: AbstractConnection) -> Finding:
    """Remove bindings that do not exist: it needs write on the destination, read on the source."""

    async def step(channel: AbstractChannel) -> None:
        for source, destination in (
            (topology.EVENTS, topology.POSTBACKS),
            (topology.POSTBACKS, topology.EVENTS),
            (topology.POSTBACKS, topology.DEAD),
        ):
            await channel.exchange_unbind(destination, source, _UNUSED_KEY)

    try:
        await on_channel(connection, step)
    except CONNECTION_ERRORS as error:
        return wrong("rabbitmq permissions", reason(error), advice(error))
    return ok("rabbitmq permissions", "configure, write and read are granted")


def _version(name: str, connection: AbstractConnection) -> Finding:
    transport = connection.transport
    properties = transport.connection.server_properties if transport else {}
    reported = properties.get("version", "?")
    version = reported.decode() if isinstance(reported, bytes) else str(reported)
    return judged(
        f"rabbitmq {name}",
        f"version {version}",
        good=at_least(version, OLDEST),
        advice=f"Upgrade to {OLDEST[0]}.{OLDEST[1]} or newer: streams and at-least-once"
        " dead-lettering of quorum queues need it.",
    )


def _connect_advice(error: BaseException) -> str:
    text = str(error)
    if "certificate" in text.lower():
        return UNTRUSTED
    if isinstance(error, aiormq.exceptions.AuthenticationError) or "ACCESS_REFUSED" in text:
        return "Correct user and password in MMS_AMQP_URL; `guest` may log in on loopback only."
    if "vhost" in text:
        return "Create the virtual host (`rabbitmqctl add_vhost`), or correct the path of the URL."
    return "Check that it runs and that MMS_AMQP_URL is right; see its log."
