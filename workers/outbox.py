"""The outbox of a window: what RabbitMQ must confirm before the window is acknowledged."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from shared.postback.dead_letter import DeadLetter
from shared.postback.envelope import Arrival
from shared.postback.event import Event
from shared.postback.passthrough import PassthroughEvent


class Correlation(NamedTuple):
    """The postback and the batch that an event results from.

    Attributes:
        batch_id: see `envelope.batch_id`; the `correlation_id` of the event's message.
        traceparent: the message's header of that name; empty when the postback is not traced.
        arrival: the postback that decided the event; None when it is not known.
    """

    batch_id: str = ""
    traceparent: str = ""
    arrival: Arrival | None = None


class Outbox(NamedTuple):
    """The events and dead letters of a window, and the numbers to count when it is acknowledged.

    Attributes:
        postbacks: the number of postbacks in the window.
        results: the number of them that were `new` or `duplicate`, by code.
        correlations: by event id; an event without one is published without a correlation.
        unknown_statuses: code and status text of postbacks whose text is in no table.
        passthrough: events of postbacks of other origins.
    """

    events: Sequence[Event]
    dead_letters: Sequence[DeadLetter]
    postbacks: int = 0
    results: Mapping[tuple[str, str], int] = MappingProxyType({})
    correlations: Mapping[str, Correlation] = MappingProxyType({})
    unknown_statuses: Sequence[tuple[str, str]] = ()
    passthrough: Sequence[PassthroughEvent] = ()
