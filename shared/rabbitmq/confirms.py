"""Messages published together: one write for all of them, one wait until each is answered.

aiormq's own `basic_publish` takes a lock, a task and some futures for each message. What is here
does for many what that does for one, with the same pieces of its channel. Nothing else knows them:

    delivery_tag             the number of the last message; RabbitMQ counts along
    confirmations            by number: the future that is told of RabbitMQ's answer
    message_id_delivery_tag  the number by message id, by which a returned message is known
    write_queue              what goes to the socket, in order

Only the end of the channel makes it unknown what became of a message. What goes wrong while one
message is encoded concerns that message alone.
"""

import asyncio
import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple, cast
from uuid import uuid4

import aiormq
from aiormq.abc import ChannelFrame
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from shared.errors import PublishOutcomeUnknownError, UnpublishableError


class Message(NamedTuple):
    """What is published, and where to.

    Attributes:
        properties: among messages under way together a message id is used once, or left out.
    """

    body: bytes
    exchange: str
    routing_key: str
    properties: Basic.Properties


async def publish(
    channel: aiormq.Channel, messages: Sequence[Message], largest: float = math.inf
) -> dict[int, Exception]:
    """Publish persistently and `mandatory`; return once RabbitMQ has answered to each.

    Args:
        largest: bytes; what has a larger body is not sent.

    Returns:
        By its place among the messages, why one was not taken: `PublishError` if no queue is
        bound, `DeliveryError` if one refused it, `UnpublishableError` if it was not sent because
        it cannot be encoded or is too large.

    Raises:
        PublishOutcomeUnknownError: the channel ended; some may have been taken. Its
            cause ended the channel.
    """
    frames, refused = _encoded(channel, messages, largest)
    if not frames:
        return refused
    answers = _Answers(len(frames), channel.create_future(), refused)
    ids = [messages[place].properties.message_id or "" for place in frames]
    payload = b"".join(frames.values())
    try:
        async with channel.lock:
            tags = range(channel.delivery_tag + 1, channel.delivery_tag + 1 + len(frames))
            channel.delivery_tag += len(frames)
            channel.message_id_delivery_tag.update(zip(ids, tags, strict=True))
            channel.confirmations.update(answers.by_tag(tags, frames))
            try:
                await channel.write_queue.put(ChannelFrame(payload, should_close=False))
            except BaseException:  # RabbitMQ has not seen them and does not count them
                channel.delivery_tag -= len(frames)
                _forget(channel, ids, tags)
                for tag in tags:
                    channel.confirmations.pop(tag, None)
                raise
    except aiormq.exceptions.ChannelInvalidStateError as error:
        raise PublishOutcomeUnknownError(f"the connection is closed: {error}") from error
    try:
        await answers.complete
    except Exception as error:  # only the end of the channel makes it fail, with whatever ended it
        raise PublishOutcomeUnknownError(
            f"the connection broke before the confirm: {error}"
        ) from error
    finally:
        _forget(channel, ids, tags)
    return answers.refused


def _encoded(
    channel: aiormq.Channel, messages: Sequence[Message], largest: float
) -> tuple[dict[int, bytes], dict[int, Exception]]:
    """By their places: the frames of what can be sent, and why the rest cannot."""
    frames: dict[int, bytes] = {}
    unpublishable: dict[int, Exception] = {}
    for place, message in enumerate(messages):
        if len(message.body) > largest:
            unpublishable[place] = UnpublishableError(too_large(len(message.body), largest))
            continue
        message.properties.delivery_mode = 2
        message.properties.message_id = message.properties.message_id or uuid4().hex
        try:
            frames[place] = _marshal(channel, message)
        except Exception as error:  # noqa: BLE001 - nothing but this message can be the cause
            failure = UnpublishableError(f"it cannot be encoded: {type(error).__name__}: {error}")
            failure.__cause__ = error
            unpublishable[place] = failure
    return frames, unpublishable


def too_large(size: int, largest: float) -> str:
    """What is wrong with a message of this size."""
    return f"its {size} bytes are more than RabbitMQ's max_message_size, {largest:.0f}"


class _Answers:
    """What RabbitMQ says to messages published together.

    Attributes:
        complete: done when the last one is answered; fails when the channel is closed.
        refused: why messages were not taken, by their place.
    """

    def __init__(
        self, count: int, complete: asyncio.Future[None], refused: dict[int, Exception]
    ) -> None:
        self.complete = complete
        self.refused = refused
        self._missing = count

    def by_tag(self, tags: range, places: Iterable[int]) -> dict[int, asyncio.Future[object]]:
        """For each message what acts as its future; the channel only ever tells it of the end."""
        return {
            tag: cast("asyncio.Future[object]", _Answer(self, place))
            for tag, place in zip(tags, places, strict=True)
        }

    def one_more(self) -> None:
        self._missing -= 1
        if not self._missing and not self.complete.done():
            self.complete.set_result(None)


class _Answer:
    """One message's part of the answers, with what the channel asks of a future."""

    __slots__ = ("_answers", "_at")

    def __init__(self, answers: _Answers, at: int) -> None:
        self._answers = answers
        self._at = at

    def done(self) -> bool:
        return self._answers.complete.done()

    def cancelled(self) -> bool:
        return self._answers.complete.cancelled()

    def set_result(self, _frame: object) -> None:
        self._answers.one_more()

    def set_exception(self, error: Exception) -> None:
        self._answers.refused[self._at] = error
        self._answers.one_more()


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


@lru_cache(maxsize=1024)  # an outcome by operator: few, unless somebody makes operators up
def _publish_frame(channel: int, exchange: str, routing_key: str) -> bytes:
    publish = Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=True)
    return frame.marshal(publish, channel)


def _forget(channel: aiormq.Channel, ids: Sequence[str], tags: range) -> None:
    known = channel.message_id_delivery_tag
    for message_id, tag in zip(ids, tags, strict=True):
        if known.get(message_id) == tag:
            del known[message_id]
