"""Decode batches: each postback by itself, so that a bad one becomes a dead letter alone."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from shared.errors import OtherOriginError, UndecodableError
from shared.postback import envelope
from shared.postback.dead_letter import DeadLetter, dead_letter_of, unreadable_batch
from shared.postback.envelope import Arrival
from shared.postback.normalise import decode
from shared.postback.passthrough import PassthroughEvent, passthrough_of
from workers.consumer import Delivery
from workers.dead_letters import failed_postback
from workers.verdicts import Received

Read = Callable[[bytes], Sequence[Arrival]]
"""Reads the arrivals from the body of a batch: `envelope.decode` or `envelope.decode_traced`."""


class Passthrough(NamedTuple):
    """A postback of another origin, and the event that is published for it."""

    event: PassthroughEvent
    arrival: Arrival
    batch_id: str


class Decoded(NamedTuple):
    """The postbacks of some batches, by what they are."""

    received: list[Received]
    dead: list[DeadLetter]
    passthrough: list[Passthrough]

    @property
    def postbacks(self) -> int:
        """The number of postbacks; a message that is not a batch counts as one."""
        return len(self.received) + len(self.dead) + len(self.passthrough)


def decode_batch(
    delivery: Delivery, decoded: Decoded, read: Read = envelope.decode
) -> Sequence[Arrival] | None:
    """Decode one batch.

    Args:
        decoded: the batch's postbacks are added here.

    Returns:
        The batch's arrivals; None when the message is not a batch; it is then a dead letter.
    """
    batch_id = delivery.batch_id
    try:
        arrivals = read(delivery.body)
    except msgspec.DecodeError as error:
        decoded.dead.append(
            unreadable_batch(delivery.body, delivery.content_type, str(error), batch_id)
        )
        return None
    for arrival in arrivals:
        try:
            try:
                normalised = decode(arrival.source, arrival.body)
            except OtherOriginError as other:
                event = passthrough_of(arrival, other.fields)
                decoded.passthrough.append(Passthrough(event, arrival, batch_id))
                continue
        except UndecodableError as error:
            decoded.dead.append(dead_letter_of(arrival, error.reason, str(error), batch_id))
        except Exception as error:  # noqa: BLE001 - nothing but this body can be the cause
            decoded.dead.append(failed_postback(arrival, batch_id, error))
        else:
            decoded.received.append(Received(arrival, normalised, delivery.redelivered, batch_id))
    return arrivals
