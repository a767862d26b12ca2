"""Events and dead letters, published and confirmed before anything is acknowledged."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec
from pamqp.commands import Basic
from pamqp.common import FieldTable

from shared import event, topology
from shared.broker import Session, backoff
from shared.errors import FateUnknownError, NotTakenError, Reason
from shared.event import Event
from workers import metrics

PUBLISH_LIMIT: Final = 10.0
"""Seconds to wait for a confirm; nobody's request waits for it."""

log: Final = logging.getLogger(__name__)


class DeadLetter(msgspec.Struct, frozen=True):
    """What could not be processed, raw, with what is known about it.

    Attributes:
        error: for people; what exactly was wrong.
        received_at: microseconds since the Unix epoch.
        traceparent: the message's header of that name, empty when it is not traced.
    """

    reason: Reason
    error: str
    source: str
    received_at: int
    content_type: str
    body: bytes
    traceparent: str = ""


class Origin(NamedTuple):
    """What an event came of.

    Attributes:
        batch: the id of the batch, see `envelope.batch_id`; the message's `correlation_id`.
        traceparent: the message's header of that name, empty when it is not traced.
    """

    batch: str = ""
    traceparent: str = ""


class Untold(NamedTuple):
    """What has to be confirmed by RabbitMQ before the window it comes from is acknowledged.

    Attributes:
        postbacks: how many the window held.
        results: how many of them were `new` or `duplicate`, by code.
        origins: what events came of, by their ids, where it is known.
    """

    events: Sequence[Event]
    dead: Sequence[DeadLetter]
    postbacks: int = 0
    results: Mapping[tuple[str, str], int] = MappingProxyType({})
    origins: Mapping[str, Origin] = MappingProxyType({})


async def emit(session: Session, untold: Untold) -> None:
    """Publish all, together; return when all are confirmed.

    Raises:
        FateUnknownError: the session broke or is stuck. What was not acknowledged comes again,
            and its events with the same ids.
    """
    try:
        async with asyncio.TaskGroup() as publishes:
            for each in untold.events:
                origin = untold.origins.get(each.id, Origin())
                publishes.create_task(_emit_event(session, each, origin))
            for letter in untold.dead:
                publishes.create_task(_bury(session, letter))
    except* FateUnknownError as errors:
        raise FateUnknownError(str(errors.exceptions[0])) from errors


async def _emit_event(session: Session, each: Event, origin: Origin) -> None:
    """To all subscribers; when the queue of one refuses, to the log alone.

    RabbitMQ refuses the publish for all when one queue refuses, though the others did take it. So
    a subscriber whose queue is full misses events, finds them in the log, and stops nobody.
    """
    body = each.encode()
    properties = _event_properties(each, origin)
    metrics.EVENTS[each.type,].inc()
    try:
        await session.publish(
            body,
            exchange=topology.EVENTS,
            routing_key=each.routing_key,
            properties=properties,
            limit=PUBLISH_LIMIT,
        )
    except NotTakenError:
        metrics.EVENTS_REFUSED.inc()
        await _until_taken(session, body, "", topology.EVENT_LOG, properties)


async def _bury(session: Session, letter: DeadLetter) -> None:
    properties = Basic.Properties(
        content_type=letter.content_type or None,
        headers={
            "x-reason": str(letter.reason),
            "x-error": letter.error[:512],
            "x-source": letter.source,
            "x-received-at": letter.received_at,
            **_trace_context(letter.traceparent),
        },
    )
    await _until_taken(session, letter.body, topology.DEAD, "", properties)


async def _until_taken(
    session: Session, body: bytes, exchange: str, routing_key: str, properties: Basic.Properties
) -> None:
    """Publish again until it is taken: there is nowhere else to put it."""
    attempt = 0
    while True:
        try:
            await session.publish(
                body,
                exchange=exchange,
                routing_key=routing_key,
                properties=properties,
                limit=PUBLISH_LIMIT,
            )
        except NotTakenError as error:
            if attempt == 0:
                log.warning("publishing again until it is taken: %s", error)
            await backoff(attempt)
            attempt += 1
        else:
            return


def _event_properties(each: Event, origin: Origin) -> Basic.Properties:
    return Basic.Properties(
        content_type=event.CONTENT_TYPE,
        message_id=each.id,
        message_type=each.type,
        correlation_id=origin.batch or None,
        headers=_trace_context(origin.traceparent) or None,
    )


def _trace_context(traceparent: str) -> FieldTable:
    return {"traceparent": traceparent} if traceparent else {}
