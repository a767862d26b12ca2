"""A message to publish, and where to."""

from typing import NamedTuple

from pamqp.commands import Basic


class Message(NamedTuple):
    """A message and its destination.

    Attributes:
        properties: its `message_id` is empty, or unique among messages in progress.
    """

    body: bytes
    exchange: str
    routing_key: str
    properties: Basic.Properties
