"""Events and dead letters, published and confirmed before anything is acknowledged."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec
from pamqp.commands import Basic
from pamqp.common import FieldTable

from shared import event, topology
from shared.broker import Session, backoff
from shared.confirms import Message
from shared.errors import Reason
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
        batch: the id of the batch it was in, see `envelope.batch_id`; the message's
            `correlation_id`, as an event's.
    """

    reason: Reason
    error: str
    source: str
    received_at: int
    content_type: str
    body: bytes
    traceparent: str = ""
    batch: str = ""


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
        unknown_statuses: code and status text of postbacks whose text is in no table.
    """

    events: Sequence[Event]
    dead: Sequence[DeadLetter]
    postbacks: int = 0
    results: Mapping[tuple[str, str], int] = MappingProxyType({})
    origins: Mapping[str, Origin] = MappingProxyType({})
    unknown_statuses: Sequence[tuple[str, str]] = ()


async def emit(session: Session, untold: Untold) -> None:
    """Publish all, together; return when all are confirmed.

    Raises:
        FateUnknownError: the session broke or is stuck. What was not acknowledged comes again,
            and its events with the same ids.
    """
    for kind, events in Counter(each.type for each in untold.events).items():
        metrics.EVENTS[kind,].inc(events)
    nowhere = Origin()
    messages = [
        _event_message(each, untold.origins.get(each.id, nowhere)) for each in untold.events
    ]
    messages += [_dead_letter_message(letter) for letter in untold.dead]
    answers = await session.publish_all(messages, PUBLISH_LIMIT)
    refused = [
        message for message, answer in zip(messages, answers, strict=True) if answer is not None
    ]
    if refused:
        await _until_taken(session, [_otherwise(message) for message in refused])


def _otherwise(refused: Message) -> Message:
    """An event that was refused goes to the log alone; a dead letter has nowhere else to go.

    RabbitMQ refuses the publish for all when one queue refuses, though the others did take it. So
    a subscriber whose queue is full misses events, finds them in the log, and stops nobody.
    """
    if refused.exchange != topology.EVENTS:
        return refused
    metrics.EVENTS_REFUSED.inc()
    return refused._replace(exchange="", routing_key=topology.EVENT_LOG)


async def _until_taken(session: Session, messages: Sequence[Message]) -> None:
    """Publish again what is not taken, until all is: there is nowhere else to put it."""
    attempt = 0
    while True:
        answers = await session.publish_all(messages, PUBLISH_LIMIT)
        refusals = [answer for answer in answers if answer is not None]
        if not refusals:
            return
        if attempt == 0:
            log.warning("publishing again until it is taken: %s", refusals[0])
        messages = [
            message for message, answer in zip(messages, answers, strict=True) if answer is not None
        ]
        await backoff(attempt)
        attempt += 1


def _event_message(each: Event, origin: Origin) -> Message:
    return Message(
        each.encode(),
        topology.EVENTS,
        each.routing_key,
        Basic.Properties(
            content_type=event.CONTENT_TYPE,
            message_id=each.id,
            message_type=each.type,
            correlation_id=origin.batch or None,
            headers=_trace_context(origin.traceparent) or None,
        ),
    )


def _dead_letter_message(letter: DeadLetter) -> Message:
    properties = Basic.Properties(
        content_type=letter.content_type or None,
        correlation_id=letter.batch or None,
        headers={
            "x-reason": str(letter.reason),
            "x-error": letter.error[:512],
            "x-source": letter.source,
            "x-received-at": letter.received_at,
            **_trace_context(letter.traceparent),
        },
    )
    return Message(letter.body, topology.DEAD, "", properties)


def _trace_context(traceparent: str) -> FieldTable:
    return {"traceparent": traceparent} if traceparent else {}
