"""Publish several messages together: one write for all, one wait until each is confirmed.

aiormq's `basic_publish` takes a lock, a task and some futures for each message. This file does the
same once for many messages, with parts of aiormq's channel that its documentation does not
mention. They are used in this file only:

    delivery_tag             the number of the last message; RabbitMQ counts in the same way
    confirmations            by number: the future that gets RabbitMQ's answer
    message_id_delivery_tag  the number by message id, which identifies a returned message
    write_queue              frames for the socket, in order
    lock                     held while a message gets its number and its frames are queued
    max_content_size         bytes of a body in one frame
    consumers                by consumer tag: the consumers that RabbitMQ has not cancelled

Tested with the versions of aiormq in `TESTED`. With another version, messages are published one by
one, see `one_by_one`: slower, never wrong. Run tests/unit/test_private_names.py and
tests/integration/test_confirms.py before you add a version.

Only the end of the channel leaves the outcome of a publish unknown. An error while one message is
encoded concerns that message alone.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache, partial
from importlib import metadata
from typing import Final, TypeVar, cast
from uuid import uuid4

import aiormq
from aiormq.abc import ChannelFrame
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from shared.errors import PublishOutcomeUnknownError, UnpublishableError
from shared.rabbitmq import one_by_one
from shared.rabbitmq.message import Message

T = TypeVar("T")

TESTED: Final = frozenset({"7.2.4"})
"""Versions of aiormq with which all tests pass."""

PRIVATE: Final = {
    "aiormq.Channel": (
        "confirmations",
        "consumers",
        "delivery_tag",
        "lock",
        "max_content_size",
        "message_id_delivery_tag",
        "write_queue",
    ),
}
"""Names of aiormq that are not part of its public interface, by class."""


log: Final = logging.getLogger(__name__)


def has_consumer(channel: aiormq.Channel, consumer_tag: str) -> bool:
    """Whether RabbitMQ has this consumer on the channel, as far as it has answered."""
    return consumer_tag in channel.consumers


async def publish(
    channel: aiormq.Channel, messages: Sequence[Message], largest: float = math.inf
) -> dict[int, Exception]:
    """Publish persistent, `mandatory` messages; return once RabbitMQ has answered each.

    Args:
        largest: bytes; a message with a larger body is not sent.

    Returns:
        By index, why a message was not accepted: `PublishError` if no queue is bound,
        `DeliveryError` if a queue refused it, `UnpublishableError` if it was not sent because it
        cannot be encoded or is too large.

    Raises:
        PublishOutcomeUnknownError: the channel ended; RabbitMQ may have some messages. Its cause
            is the error that ended the channel.
    """
    if not is_tested():
        _, refused = _encoded(one_by_one.check, messages, largest)
        sendable = {at: each for at, each in enumerate(messages) if at not in refused}
        await one_by_one.publish(channel, sendable, refused)
        return refused
    frames, refused = _encoded(partial(_marshal, channel), messages, largest)
    if not frames:
        return refused
    results = _Results(len(frames), channel.create_future(), refused)
    ids = [messages[index].properties.message_id or "" for index in frames]
    payload = b"".join(frames.values())
    try:
        async with channel.lock:
            tags = range(channel.delivery_tag + 1, channel.delivery_tag + 1 + len(frames))
            channel.delivery_tag += len(frames)
            channel.message_id_delivery_tag.update(zip(ids, tags, strict=True))
            channel.confirmations.update(results.by_tag(tags, frames))
            try:
                await channel.write_queue.put(ChannelFrame(payload, should_close=False))
            except BaseException:  # RabbitMQ never sees these messages and does not count them
                channel.delivery_tag -= len(frames)
                _forget(channel, ids, tags)
                for tag in tags:
                    channel.confirmations.pop(tag, None)
                raise
    except aiormq.exceptions.ChannelInvalidStateError as error:
        raise PublishOutcomeUnknownError(f"the connection is closed: {error}") from error
    try:
        await results.complete
    except Exception as error:  # only the end of the channel makes it fail, with its reason
        raise PublishOutcomeUnknownError(
            f"the connection broke before the confirm: {error}"
        ) from error
    finally:
        _forget(channel, ids, tags)
    return results.refused


@cache  # asked, and logged, once for each process
def is_tested() -> bool:
    """Whether messages can be published together with the installed version of aiormq."""
    version = metadata.version("aiormq")
    if version in TESTED:
        return True
    log.warning(
        "aiormq %s was not tested with publishing many messages at once, which stays off: fewer"
        " postbacks a second; tested are %s",
        version,
        ", ".join(sorted(TESTED)),
    )
    return False


def _encoded(
    encode: Callable[[Message], T], messages: Sequence[Message], largest: float
) -> tuple[dict[int, T], dict[int, Exception]]:
    """By index: each message that can be sent, encoded, and why the others cannot be."""
    frames: dict[int, T] = {}
    unpublishable: dict[int, Exception] = {}
    for index, message in enumerate(messages):
        if len(message.body) > largest:
            unpublishable[index] = UnpublishableError(too_large(len(message.body), largest))
            continue
        message.properties.delivery_mode = 2
        message.properties.message_id = message.properties.message_id or uuid4().hex
        try:
            frames[index] = encode(message)
        except Exception as error:  # noqa: BLE001 - only this message can be the cause
            failure = UnpublishableError(f"it cannot be encoded: {type(error).__name__}: {error}")
            failure.__cause__ = error
            unpublishable[index] = failure
    return frames, unpublishable


def too_large(size: int, largest: float) -> str:
    """The text of the error for a body of `size` bytes."""
    return f"its {size} bytes are more than RabbitMQ's max_message_size, {largest:.0f}"


class _Results:
    """RabbitMQ's answers to messages that were published together.

    Attributes:
        complete: done when the last message is answered; fails when the channel is closed.
        refused: why messages were not accepted, by index.
    """

    def __init__(
        self, count: int, complete: asyncio.Future[None], refused: dict[int, Exception]
    ) -> None:
        self.complete = complete
        self.refused = refused
        self._missing = count

    def by_tag(self, tags: range, indexes: Iterable[int]) -> dict[int, asyncio.Future[object]]:
        """An object for each message that aiormq uses as the future of its confirm."""
        return {
            tag: cast("asyncio.Future[object]", _Result(self, index))
            for tag, index in zip(tags, indexes, strict=True)
        }

    def count_one(self) -> None:
        self._missing -= 1
        if not self._missing and not self.complete.done():
            self.complete.set_result(None)


class _Result:
    """RabbitMQ's answer to one message, with the methods that aiormq calls on a future."""

    __slots__ = ("_index", "_results")

    def __init__(self, results: _Results, index: int) -> None:
        self._results = results
        self._index = index

    def done(self) -> bool:
        return self._results.complete.done()

    def cancelled(self) -> bool:
        return self._results.complete.cancelled()

    def set_result(self, _frame: object) -> None:
        self._results.count_one()

    def set_exception(self, error: Exception) -> None:
        self._results.refused[self._index] = error
        self._results.count_one()


def _marshal(channel: aiormq.Channel, message: Message) -> bytes:
    number, body = channel.number, message.body
    largest = channel.max_content_size
    frames = [
        _publish_frame(number, message.exchange, message.routing_key),
        frame.marshal(ContentHeader(body_size=len(body), properties=message.properties), number),
    ]
    frames += [
        frame.marshal(ContentBody(body[start : start + largest]), number)
        for start in range(0, len(body), largest)
    ]
    return b"".join(frames)


@lru_cache(maxsize=1024)  # one routing key for each outcome and operator: usually few
def _publish_frame(channel: int, exchange: str, routing_key: str) -> bytes:
    publish = Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=True)
    return frame.marshal(publish, channel)


def _forget(channel: aiormq.Channel, ids: Sequence[str], tags: range) -> None:
    known = channel.message_id_delivery_tag
    for message_id, tag in zip(ids, tags, strict=True):
        if known.get(message_id) == tag:
            del known[message_id]
