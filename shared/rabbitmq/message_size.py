"""RabbitMQ's `max_message_size`, as far as this process has learned it.

The limit of a node does not change while the node runs. AMQP has no call that returns it: RabbitMQ
closes the channel of a client that exceeds it, and names it in the reason. So it is remembered for
each node.
"""

import math
import re
from typing import Final

from aiormq.exceptions import ChannelPreconditionFailed

from shared.errors import PublishOutcomeUnknownError

_by_node: Final[dict[str, int]] = {}

_TOO_LARGE: Final = re.compile(r"message size \d+ is larger than (?:configured )?max size (\d+)")


def max_message_size(node: str) -> float:
    """Bytes of the largest body that a node (`host:port`) accepts; infinite if not known."""
    return _by_node.get(node, math.inf)


def learn_max_message_size(node: str, error: PublishOutcomeUnknownError) -> None:
    """Remember the limit if exceeding it is the reason why RabbitMQ closed the channel."""
    cause = error.__cause__
    if isinstance(cause, ChannelPreconditionFailed) and (found := _TOO_LARGE.search(str(cause))):
        _by_node[node] = int(found[1])


def forget_max_message_sizes() -> None:
    """Forget all limits; for tests, which change the limit of a running node."""
    _by_node.clear()
