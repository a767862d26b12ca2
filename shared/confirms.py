"""Messages published together: one write for all of them, one wait until each is answered.

aiormq's own `basic_publish` takes a lock, a task and some futures for each message. What is here
does for many what that does for one, with the same pieces of its channel. Nothing else knows them:

    delivery_tag             the number of the last message; RabbitMQ counts along
    confirmations            by number: the future that is told of RabbitMQ's answer
    message_id_delivery_tag  the number by message id, by which a returned message is known
    write_queue              what goes to the socket, in order
"""

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, cast
from uuid import uuid4

import aiormq
from aiormq.abc import ChannelFrame
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader


class Message(NamedTuple):
    """What is published, and where to.

    Attributes:
        properties: among messages under way together a message id is used once, or left out.
    """

    body: bytes
    exchange: str
    routing_key: str
    properties: Basic.Properties


async def publish(channel: aiormq.Channel, messages: Sequence[Message]) -> dict[int, Exception]:
    """Publish persistently and `mandatory`; return once RabbitMQ has answered to each.

    Returns:
        By its place among the messages, why one was not taken: `PublishError` if no queue is
        bound, `DeliveryError` if one refused it.

    Raises:
        Exception: whatever closed the channel; some may have been taken.
    """
    if not messages:
        return {}
    answers = _Answers(len(messages), channel.create_future())
    ids = []
    for message in messages:
        message.properties.delivery_mode = 2
        message.properties.message_id = message.properties.message_id or uuid4().hex
        ids.append(message.properties.message_id)
    payload = b"".join([_marshal(channel, message) for message in messages])
    async with channel.lock:
        tags = range(channel.delivery_tag + 1, channel.delivery_tag + 1 + len(messages))
        channel.delivery_tag += len(messages)
        channel.message_id_delivery_tag.update(zip(ids, tags, strict=True))
        channel.confirmations.update(answers.by_tag(tags))
        try:
            await channel.write_queue.put(ChannelFrame(payload, should_close=False))
        except BaseException:  # RabbitMQ has not seen them and does not count them
            channel.delivery_tag -= len(messages)
            _forget(channel, ids, tags)
            for tag in tags:
                channel.confirmations.pop(tag, None)
            raise
    try:
        await answers.complete
    finally:
        _forget(channel, ids, tags)
    return answers.refused


class _Answers:
    """What RabbitMQ says to messages published together.

    Attributes:
        complete: done when the last one is answered; fails when the channel is closed.
        refused: why messages were not taken, by their place.
    """

    def __init__(self, count: int, complete: asyncio.Future[None]) -> None:
        self.complete = complete
        self.refused: dict[int, Exception] = {}
        self._missing = count

    def by_tag(self, tags: range) -> dict[int, asyncio.Future[object]]:
        """For each message what acts as its future; the channel only ever tells it of the end."""
        return {
            tag: cast("asyncio.Future[object]", _Answer(self, at)) for at, tag in enumerate(tags)
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
