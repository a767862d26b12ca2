"""Events and dead letters, published and confirmed before anything is acknowledged."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from pamqp.commands import Basic
from pamqp.common import FieldTable

from shared.errors import (
    PublishOutcomeUnknownError,
    PublishRejectedError,
    UnpublishableError,
)
from shared.postback import event
from shared.postback.dead_letter import DeadLetter, Reason, dead_letter_of
from shared.postback.envelope import Arrival
from shared.postback.event import Event
from shared.postback.passthrough import PassthroughEvent
from shared.postback.short_string import fit
from shared.rabbitmq import topology
from shared.rabbitmq.confirms import Message
from shared.rabbitmq.session import Result, Session, backoff
from shared.rate_limited_log import RateLimitedLog
from workers import metrics
from workers.store import Unmergeable

PUBLISH_LIMIT: Final = 10.0
"""Seconds to wait for a confirm; nobody's request waits for it."""

log: Final = logging.getLogger(__name__)
_limited_log: Final = RateLimitedLog(log)


def refused_postbacks(result: Unmergeable) -> list[DeadLetter]:
    """The dead letters of postbacks that Redis refuses."""
    return [
        dead_letter_of(received.arrival, Reason.UNDELIVERABLE, result.error, received.batch)
        for received in result.received
    ]


class Correlation(NamedTuple):
    """What an event came of.

    Attributes:
        batch: the id of the batch, see `envelope.batch_id`; the message's `correlation_id`.
        traceparent: the message's header of that name, empty when it is not traced.
        arrival: the postback that decided it; None where it is not at hand.
    """

    batch: str = ""
    traceparent: str = ""
    arrival: Arrival | None = None


class Outbox(NamedTuple):
    """What has to be confirmed by RabbitMQ before the window it comes from is acknowledged.

    Attributes:
        postbacks: how many the window held.
        results: how many of them were `new` or `duplicate`, by code.
        origins: what events came of, by their ids, where it is known.
        unknown_statuses: code and status text of postbacks whose text is in no table.
        passthrough: events of postbacks of other origins.
    """

    events: Sequence[Event]
    dead: Sequence[DeadLetter]
    postbacks: int = 0
    results: Mapping[tuple[str, str], int] = MappingProxyType({})
    correlations: Mapping[str, Correlation] = MappingProxyType({})
    unknown_statuses: Sequence[tuple[str, str]] = ()
    passthrough: Sequence[PassthroughEvent] = ()


class _Outgoing(NamedTuple):
    """What is to be published, and what instead if that can never be."""

    message: Message
    instead: Callable[[UnpublishableError], "_Outgoing | None"]


async def emit(session: Session, outbox: Outbox) -> None:
    """Publish all, together; return when all are confirmed.

    What can never be published as it is concerns nothing else: an event becomes a dead letter of
    the postback that decided it, a dead letter is reduced to its body and its reason.

    Args:
        session: with a channel that nothing consumes on: a message that makes RabbitMQ close the
            channel is found by opening another in its place.

    Raises:
        PublishOutcomeUnknownError, BrokerUnavailableError: the session broke or is stuck.
            What was not acknowledged comes again, and its events with the same ids.
    """
    for kind, events in Counter(each.type for each in outbox.events).items():
        metrics.EVENTS[kind,].inc(events)
    if outbox.passthrough:
        metrics.EVENTS["mms.passthrough",].inc(len(outbox.passthrough))
    nowhere = Correlation()
    events_to_send: list[Event | PassthroughEvent] = [*outbox.events, *outbox.passthrough]
    outgoing = [
        each
        for event in events_to_send
        if (each := _outgoing_event(event, outbox.correlations.get(event.id, nowhere))) is not None
    ]
    outgoing += [_outgoing_dead_letter(dead_letter) for dead_letter in outbox.dead]
    refusals = 0
    while outgoing:
        answers = await _publish(session, [each.message for each in outgoing])
        again: list[_Outgoing] = []
        refused: list[PublishRejectedError] = []
        for each, answer in zip(outgoing, answers, strict=True):
            if isinstance(answer, UnpublishableError):
                if (instead := each.instead(answer)) is not None:
                    again.append(instead)
            elif answer is not None:
                again.append(each._replace(message=_otherwise(each.message)))
                refused.append(answer)
        outgoing = again
        if refused:
            refusals = await _pause(refusals, refused[0])


async def _publish(session: Session, messages: Sequence[Message]) -> list[Result]:
    """Publish all; when RabbitMQ closes the channel for one's sake, find which one it is."""
    try:
        return await session.publish_all(messages, PUBLISH_LIMIT)
    except PublishOutcomeUnknownError as error:
        if not session.refused_a_message(error):
            raise
        await session.reopen_channel()
        if len(messages) == 1:
            return [UnpublishableError(str(error))]
    half = len(messages) // 2
    return [
        *await _publish(session, messages[:half]),
        *await _publish(session, messages[half:]),
    ]


def _otherwise(refused: Message) -> Message:
    """An event that was refused goes to the log alone; all else has nowhere else to go.

    RabbitMQ refuses the publish for all when one queue refuses, though the others did take it. So
    a subscriber whose queue is full misses events, finds them in the log, and stops nobody.
    """
    if refused.exchange != topology.EVENTS:
        return refused
    metrics.EVENTS_REFUSED.inc()
    return refused._replace(exchange="", routing_key=topology.EVENT_LOG)


async def _pause(refusals: int, refusal: PublishRejectedError) -> int:
    """What was refused goes elsewhere at once, and then again until it is taken."""
    if refusals:
        if refusals == 1:
            log.warning("publishing again until it is taken: %s", refusal)
        await backoff(refusals - 1)
    return refusals + 1


def _outgoing_event(event: Event | PassthroughEvent, correlation: Correlation) -> _Outgoing | None:
    """An event, else a dead letter of the postback that decided it."""

    def instead(error: UnpublishableError) -> _Outgoing | None:
        metrics.UNPUBLISHABLE["event",].inc()
        _limited_log.warning(
            "event", "an event cannot be published, its postback is kept: %s", error
        )
        if correlation.arrival is None:
            return None
        return _outgoing_dead_letter(
            dead_letter_of(
                correlation.arrival,
                Reason.UNDELIVERABLE,
                f"its event cannot be published: {error}",
                correlation.batch,
            )
        )

    try:
        message = _event_message(event, correlation)
    except Exception as error:  # noqa: BLE001 - nothing but this event can be the cause
        return instead(UnpublishableError(f"it cannot be encoded: {type(error).__name__}"))
    return _Outgoing(message, instead)


def _outgoing_dead_letter(dead_letter: DeadLetter) -> _Outgoing:
    """A dead letter, else its body and its reason alone."""

    def instead(error: UnpublishableError) -> _Outgoing:
        metrics.UNPUBLISHABLE["dead letter",].inc()
        _limited_log.warning("dead letter", "a dead letter loses its headers: %s", error)
        return _Outgoing(_bare_message(dead_letter), _give_up)

    try:
        return _Outgoing(_dead_letter_message(dead_letter), instead)
    except Exception as error:  # noqa: BLE001 - nothing but this dead letter can be the cause
        return instead(UnpublishableError(f"it cannot be encoded: {type(error).__name__}"))


def _give_up(error: UnpublishableError) -> None:
    """A body alone that RabbitMQ does not take: the archive still has it."""
    metrics.UNPUBLISHABLE["body",].inc()
    log.error("a dead letter cannot be published, only the archive has it: %s", error)


def _event_message(each: Event | PassthroughEvent, correlation: Correlation) -> Message:
    return Message(
        each.encode(),
        topology.EVENTS,
        fit(each.routing_key),
        Basic.Properties(
            content_type=event.CONTENT_TYPE,
            message_id=fit(each.id),
            message_type=fit(each.type),
            correlation_id=fit(correlation.batch) or None,
            headers=_trace_context(correlation.traceparent) or None,
        ),
    )


def _dead_letter_message(dead_letter: DeadLetter) -> Message:
    return Message(dead_letter.body, topology.DEAD, "", dead_letter.properties())


def _bare_message(dead_letter: DeadLetter) -> Message:
    """The last resort: what cannot be the cause."""
    return Message(dead_letter.body, topology.DEAD, "", dead_letter.minimal_properties())


def _trace_context(traceparent: str) -> FieldTable:
    return {"traceparent": fit(traceparent)} if traceparent else {}
