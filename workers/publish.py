"""Publish an outbox: return when RabbitMQ has confirmed every event and every dead letter.

All messages of an outbox are published together. A message that RabbitMQ does not accept never
stops the others:

* A queue rejects an event: it is published to `mms.events.log` alone, until that accepts it.
* A queue rejects a dead letter: it is published again, with backoff, until RabbitMQ accepts it.
* An event can never be published as it is: the postback that decided it becomes a dead letter.
* A dead letter can never be published as it is: it is published with its body and reason alone.
* A body alone can never be published: that is logged, and only the archive has it.
* RabbitMQ closes the channel because of one message and does not say which: the messages are
  published in halves, each on a new channel, until the message is found.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from pamqp.commands import Basic

from shared.backoff import backoff
from shared.errors import PublishOutcomeUnknownError, PublishRejectedError, UnpublishableError
from shared.postback import event
from shared.postback.dead_letter import DeadLetter, Reason, dead_letter_of
from shared.postback.event import Event
from shared.postback.passthrough import PassthroughEvent
from shared.postback.short_string import fit
from shared.rabbitmq import topology
from shared.rabbitmq.message import Message
from shared.rabbitmq.session import Result, Session
from shared.rate_limited_log import RateLimitedLog
from workers import metrics
from workers.outbox import Correlation, Outbox

PUBLISH_LIMIT: Final = 10.0
"""Seconds to wait for all confirms. No client waits for them."""

_NO_CORRELATION: Final = Correlation()

log: Final = logging.getLogger(__name__)
_limited_log: Final = RateLimitedLog(log)


class _Outgoing(NamedTuple):
    """A message to publish.

    Attributes:
        replacement: returns what is published instead if this message can never be published;
            None: nothing is.
    """

    message: Message
    replacement: Callable[[UnpublishableError], "_Outgoing | None"]


async def publish_outbox(session: Session, outbox: Outbox) -> None:
    """Publish all; return when RabbitMQ has confirmed all.

    Args:
        session: without a consumer on its channel, because the channel is replaced when RabbitMQ
            closes it.

    Raises:
        PublishOutcomeUnknownError, BrokerUnavailableError: the session is lost or does not answer.
            The window must not be acknowledged. Its events keep their ids when it is redelivered.
    """
    _count_events(outbox)
    outgoing = _outgoing_events(outbox)
    outgoing += [_outgoing_dead_letter(each) for each in outbox.dead_letters]
    rejections = 0
    while outgoing:
        results = await _publish(session, [each.message for each in outgoing])
        if not any(results):  # RabbitMQ has confirmed all
            return
        outgoing = _not_confirmed(outgoing, results)
        rejected = next((each for each in results if isinstance(each, PublishRejectedError)), None)
        if rejected is not None:
            await _pause(rejections, rejected)
            rejections += 1


def _count_events(outbox: Outbox) -> None:
    for event_type, events in Counter(each.type for each in outbox.events).items():
        metrics.EVENTS[event_type,].inc(events)
    if outbox.passthrough:
        metrics.EVENTS["mms.passthrough",].inc(len(outbox.passthrough))


async def _publish(session: Session, messages: Sequence[Message]) -> list[Result]:
    """Publish all; find the message for which RabbitMQ closes the channel."""
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


def _not_confirmed(outgoing: Sequence[_Outgoing], results: Sequence[Result]) -> list[_Outgoing]:
    """What is still to be published: the messages that RabbitMQ did not accept, or replacements."""
    left: list[_Outgoing] = []
    for each, result in zip(outgoing, results, strict=True):
        if isinstance(result, UnpublishableError):
            if (replacement := each.replacement(result)) is not None:
                left.append(replacement)
        elif result is not None:
            left.append(each._replace(message=_after_rejection(each.message)))
    return left


def _after_rejection(message: Message) -> Message:
    """A rejected event for `mms.events.log` alone; any other message as it is.

    RabbitMQ rejects a publish when one queue rejects it, although the other queues accept it. So a
    subscriber whose queue is full misses events, but can read them from the log, and stops nobody.
    """
    if message.exchange != topology.EVENTS:
        return message
    metrics.EVENTS_REFUSED.inc()
    return message._replace(exchange="", routing_key=topology.EVENT_LOG)


async def _pause(rejections: int, rejected: PublishRejectedError) -> None:
    """No pause after the first rejection (events go to the log now); then backoff."""
    if rejections == 1:
        log.warning("publishing again until RabbitMQ accepts it: %s", rejected)
    if rejections:
        await backoff(rejections - 1)


def _outgoing_events(outbox: Outbox) -> list[_Outgoing]:
    found = outbox.correlations.get
    events: list[Event | PassthroughEvent] = [*outbox.events, *outbox.passthrough]
    outgoing = (_outgoing_event(each, found(each.id, _NO_CORRELATION)) for each in events)
    return [each for each in outgoing if each is not None]


def _outgoing_event(each: Event | PassthroughEvent, correlation: Correlation) -> _Outgoing | None:
    """An event, or what is published instead when it cannot be encoded."""
    replacement = partial(_postback_instead_of_event, correlation)
    try:
        message = _event_message(each, correlation)
    except Exception as error:  # noqa: BLE001 - nothing but this event can be the cause
        return replacement(UnpublishableError(f"it cannot be encoded: {type(error).__name__}"))
    return _Outgoing(message, replacement)


def _event_message(each: Event | PassthroughEvent, correlation: Correlation) -> Message:
    traceparent = correlation.traceparent
    return Message(
        each.encode(),
        topology.EVENTS,
        fit(each.routing_key),
        Basic.Properties(
            content_type=event.CONTENT_TYPE,
            message_id=fit(each.id),
            message_type=fit(each.type),
            correlation_id=fit(correlation.batch_id) or None,
            headers={"traceparent": fit(traceparent)} if traceparent else None,
        ),
    )


def _postback_instead_of_event(
    correlation: Correlation, error: UnpublishableError
) -> _Outgoing | None:
    """The postback that decided an unpublishable event, as a dead letter."""
    metrics.UNPUBLISHABLE["event",].inc()
    _limited_log.warning(
        "event", "an event cannot be published, its postback becomes a dead letter: %s", error
    )
    if correlation.arrival is None:
        return None
    text = f"its event cannot be published: {error}"
    return _outgoing_dead_letter(
        dead_letter_of(correlation.arrival, Reason.UNDELIVERABLE, text, correlation.batch_id)
    )


def _outgoing_dead_letter(dead_letter: DeadLetter) -> _Outgoing:
    message = Message(dead_letter.body, topology.DEAD, "", dead_letter.properties())
    return _Outgoing(message, partial(_body_instead_of_dead_letter, dead_letter))


def _body_instead_of_dead_letter(dead_letter: DeadLetter, error: UnpublishableError) -> _Outgoing:
    """The body and the reason of an unpublishable dead letter."""
    metrics.UNPUBLISHABLE["dead letter",].inc()
    _limited_log.warning(
        "dead letter", "a dead letter is published without its other headers: %s", error
    )
    properties = dead_letter.minimal_properties()
    return _Outgoing(Message(dead_letter.body, topology.DEAD, "", properties), _nothing)


def _nothing(error: UnpublishableError) -> None:
    """Nothing replaces a body that cannot be published; the archive has it."""
    metrics.UNPUBLISHABLE["body",].inc()
    log.error("a dead letter cannot be published, only the archive has it: %s", error)
