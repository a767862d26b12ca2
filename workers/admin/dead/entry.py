"""A dead letter as people speak of it: an id, a reason, and the postbacks in it.

Two kinds are in `mms.dead`. A worker puts single postbacks there, raw, with what it knew in the
headers. RabbitMQ itself puts whole batches there when no worker survived them; they have no reason
of ours and count as `undeliverable`.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec
from aiormq.abc import DeliveredMessage

from shared.errors import Reason
from shared.postback import envelope
from shared.postback.envelope import Arrival

ID_DIGITS: Final = 12


class Letter(msgspec.Struct, frozen=True):
    """One message of `mms.dead`.

    Attributes:
        id: a digest of what it holds; letters that hold the same share it.
        batch: whether it is a batch that can be taken apart.
        arrivals: the postbacks in it: one, or a batch's; none when it is neither.
        received_at: microseconds since the Unix epoch, the earliest if there are several; None
            when it is not known.
        batch_id: of the batch that it is or was in, as logs and events have it; empty when it is
            not known.
    """

    id: str
    reason: str
    error: str
    source: str
    received_at: int | None
    content_type: str
    body: bytes
    batch: bool
    arrivals: tuple[Arrival, ...]
    headers: Mapping[str, object]
    batch_id: str = ""


class Filter(msgspec.Struct, frozen=True):
    """Which letters a command is about; what is None does not narrow.

    Attributes:
        source: a batch counts when any of its postbacks came from there.
    """

    id: str | None = None
    reason: str | None = None
    source: str | None = None
    since: datetime | None = None

    def takes(self, letter: Letter) -> bool:
        return (
            (self.id is None or letter.id == self.id)
            and (self.reason is None or letter.reason == self.reason)
            and (self.source is None or self.source in _sources(letter))
            and (self.since is None or self._late_enough(letter, self.since))
        )

    @staticmethod
    def _late_enough(letter: Letter, since: datetime) -> bool:
        return letter.received_at is not None and letter.received_at >= since.timestamp() * 1e6


def read_letter(message: DeliveredMessage) -> Letter:
    """The dead letter that a message of `mms.dead` is."""
    properties = message.header.properties
    headers: dict[str, object] = dict(properties.headers or {})
    content_type = str(properties.content_type or "")
    reason = headers.get("x-reason")
    source = str(headers.get("x-source") or "")
    if (reason is None or not source) and content_type == envelope.CONTENT_TYPE:
        # No account of the provider's is without a name: this one was never inside a batch.
        arrivals = _arrivals(message.body)
        if arrivals is not None:
            return _batch(message.body, arrivals, headers)
    at = headers.get("x-received-at")
    received_at = at if isinstance(at, int) else None
    single = Arrival(received_at or 0, source, content_type, message.body)
    return Letter(
        id=_digest(str(reason), received_at, message.body),
        reason=str(reason or Reason.UNDELIVERABLE),
        error=str(headers.get("x-error") or ""),
        source=source,
        received_at=received_at,
        content_type=content_type,
        body=message.body,
        batch=False,
        arrivals=(single,) if source else (),
        headers=headers,
        batch_id=str(properties.correlation_id or ""),
    )


def _batch(body: bytes, arrivals: tuple[Arrival, ...], headers: Mapping[str, object]) -> Letter:
    death = headers.get("x-first-death-reason")
    return Letter(
        id=_digest("", None, body),
        reason=Reason.UNDELIVERABLE,
        error=f"a batch that no worker could finish ({death or 'no reason given'})",
        source=",".join(sorted({arrival.source for arrival in arrivals})),
        received_at=min((arrival.received_at for arrival in arrivals), default=None),
        content_type=envelope.CONTENT_TYPE,
        body=body,
        batch=True,
        arrivals=arrivals,
        headers=headers,
        batch_id=envelope.batch_id(body),
    )


def _arrivals(body: bytes) -> tuple[Arrival, ...] | None:
    try:
        return tuple(envelope.decode(body))
    except msgspec.DecodeError:
        return None


def _sources(letter: Letter) -> set[str]:
    return {arrival.source for arrival in letter.arrivals} or {letter.source}


def _digest(reason: str, received_at: int | None, body: bytes) -> str:
    told = hashlib.blake2b(f"{reason}\0{received_at}\0".encode(), digest_size=ID_DIGITS // 2)
    told.update(body)
    return told.hexdigest()
