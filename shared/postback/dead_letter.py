"""A dead letter: a body that cannot be processed, the reason, and its form as an AMQP message.

Two kinds of message are in `mms.dead`:

* A worker publishes each postback that it cannot process, raw. The headers hold what it knows.
* RabbitMQ moves a batch there that was delivered more often than the input queue allows. Such a
  message has no `x-reason`. It counts as `undeliverable`, and its postbacks can be replayed one by
  one.
"""

import hashlib
import time
from enum import StrEnum
from functools import cached_property
from typing import Final

import msgspec
from pamqp.commands import Basic
from pamqp.common import FieldTable

from shared.postback import envelope
from shared.postback.envelope import Arrival
from shared.postback.short_string import SHORT_STRING, fit

MAX_ERROR: Final = 512
"""Bytes of the header that says what is wrong."""

_ID_DIGITS: Final = 12


class Reason(StrEnum):
    """Why a body is a dead letter; the `x-reason` header."""

    MALFORMED = "malformed"
    """It is neither JSON nor XML, or a message is no batch of postbacks."""

    INVALID = "invalid"
    """It was parsed, but `origin` or `code` is missing, or a field is neither text nor number."""

    UNKNOWN_CODE = "unknown-code"
    """Its code is not in the table, see `codes`."""

    NO_KEY = "no-key"
    """It has no id to file it under."""

    TOO_LONG = "too-long"
    """A field exceeds its limit."""

    UNDELIVERABLE = "undeliverable"
    """It reached RabbitMQ's delivery limit, or it cannot be processed for a reason of its own."""


FORMER_REASONS: Final = ("unsupported-origin",)
"""Reasons of earlier releases. A replay publishes such postbacks as passthrough events."""


class DeadLetter(msgspec.Struct, frozen=True, dict=True):
    """One message of `mms.dead`.

    All texts are cut and cleaned so that AMQP can carry them, see `fit`.

    Attributes:
        reason: a `Reason`, or one of `FORMER_REASONS`.
        error: for people; what exactly is wrong. At most `MAX_ERROR` bytes.
        source: the provider account; empty when the body is a whole message, not one postback.
        received_at: microseconds since the Unix epoch, of a batch the earliest; None: not known.
        content_type: as it arrived; empty when there was none.
        traceparent: the message's header of that name; empty when the postback is not traced.
        batch_id: of the batch that held it, see `envelope.batch_id`; empty when it is not known.
            The message's `correlation_id`, as with events.
    """

    reason: str
    error: str
    source: str
    received_at: int | None
    content_type: str
    body: bytes
    traceparent: str = ""
    batch_id: str = ""

    def __post_init__(self) -> None:
        for name, limit in _LIMITS.items():
            msgspec.structs.force_setattr(self, name, fit(getattr(self, name), limit))

    @property
    def id(self) -> str:
        """A digest of the content, 12 hexadecimal digits. Equal dead letters share it."""
        known = "\0None\0" if self.is_batch else f"{self.reason}\0{self.received_at}\0"
        digest = hashlib.blake2b(known.encode(), digest_size=_ID_DIGITS // 2)
        digest.update(self.body)
        return digest.hexdigest()

    @property
    def is_batch(self) -> bool:
        """Whether the body is a batch, which can be split into its postbacks."""
        return self._batch is not None

    @property
    def arrivals(self) -> tuple[Arrival, ...]:
        """The postbacks in it: one, or those of a batch; none when it is neither."""
        if self.source:
            return (Arrival(self.received_at or 0, self.source, self.content_type, self.body),)
        return self._batch or ()

    @property
    def sources(self) -> tuple[str, ...]:
        """The provider accounts of its postbacks, in order, each once; none when it has none."""
        return tuple(sorted({each.source for each in self.arrivals}))

    @cached_property
    def _batch(self) -> tuple[Arrival, ...] | None:
        # Each postback of a batch has a source. A client cannot pass its body off as a batch by
        # naming a batch's content type.
        if self.source or self.content_type != envelope.CONTENT_TYPE:
            return None
        try:
            return tuple(envelope.decode(self.body))
        except msgspec.DecodeError:
            return None

    def properties(self) -> Basic.Properties:
        """The properties of its message, whose body is `body`."""
        headers: FieldTable = {
            "x-reason": str(self.reason),
            "x-error": self.error,
            "x-source": self.source,
        }
        if self.received_at is not None:
            headers["x-received-at"] = self.received_at
        if self.traceparent:
            headers["traceparent"] = self.traceparent
        return Basic.Properties(
            content_type=self.content_type or None,
            correlation_id=self.batch_id or None,
            headers=headers,
        )

    def minimal_properties(self) -> Basic.Properties:
        """The reason alone, for a dead letter whose other properties RabbitMQ refuses."""
        return Basic.Properties(headers={"x-reason": str(self.reason)})


_LIMITS: Final = {
    "error": MAX_ERROR,
    "source": SHORT_STRING,
    "content_type": SHORT_STRING,
    "traceparent": SHORT_STRING,
    "batch_id": SHORT_STRING,
}
"""Bytes of each text."""


def dead_letter_of(arrival: Arrival, reason: str, error: str, batch_id: str) -> DeadLetter:
    """The dead letter of one postback, as it arrived.

    Args:
        reason: a `Reason`.
        error: for people; what exactly is wrong.
        batch_id: of the batch that held it, see `envelope.batch_id`.
    """
    return DeadLetter(
        reason=reason,
        error=error,
        source=arrival.source,
        received_at=arrival.received_at,
        content_type=arrival.content_type,
        body=arrival.body,
        traceparent=envelope.traceparent(arrival),
        batch_id=batch_id,
    )


def unreadable_batch(body: bytes, content_type: str, error: str, batch_id: str) -> DeadLetter:
    """The dead letter of a message that is no batch of postbacks; received now.

    Args:
        error: for people; what exactly is wrong.
        batch_id: see `envelope.batch_id`.
    """
    return DeadLetter(
        reason=Reason.MALFORMED,
        error=f"no batch of postbacks: {error}",
        source="",
        received_at=time.time_ns() // 1000,
        content_type=content_type,
        body=body,
        batch_id=batch_id,
    )


def decode_dead_letter(body: bytes, properties: Basic.Properties) -> DeadLetter:
    """The dead letter that a message of `mms.dead` holds; accepts any message."""
    headers = properties.headers or {}
    received_at = headers.get("x-received-at")
    dead_letter = DeadLetter(
        reason=str(headers.get("x-reason") or Reason.UNDELIVERABLE),
        error=str(headers.get("x-error") or ""),
        source=str(headers.get("x-source") or ""),
        received_at=received_at if isinstance(received_at, int) else None,
        content_type=str(properties.content_type or ""),
        body=body,
        traceparent=str(headers.get("traceparent") or ""),
        batch_id=str(properties.correlation_id or ""),
    )
    if "x-reason" not in headers and dead_letter.is_batch:
        return _moved_by_rabbitmq(dead_letter, headers)
    return dead_letter


def _moved_by_rabbitmq(dead_letter: DeadLetter, headers: FieldTable) -> DeadLetter:
    """A batch that reached the delivery limit, with what its postbacks say about it."""
    death = str(headers.get("x-first-death-reason") or "no reason given")
    return msgspec.structs.replace(
        dead_letter,
        error=f"a batch that no worker could finish ({death})",
        received_at=min((each.received_at for each in dead_letter.arrivals), default=None),
        batch_id=envelope.batch_id(dead_letter.body),
    )
