"""One reader of `mms.dead` at a time.

A reader holds the dead letters unacknowledged. A second command would only see, and report, those
that the first has not received yet. So each command first declares an exclusive queue. RabbitMQ
allows that to one connection, and deletes the queue with it. The next command waits.
"""

import asyncio
from typing import Final

from aiormq.exceptions import ChannelLockedResource

from shared.errors import DeadLettersInUseError
from shared.rabbitmq.connection import CONNECT_LIMIT
from shared.rabbitmq.errors import connection_errors
from shared.rabbitmq.session import Session
from workers.admin import console

LOCK: Final = "mms.dead.lock"
"""The exclusive queue."""

LOCK_LIMIT: Final = 60.0
"""Seconds to wait until another command finishes."""

POLL_INTERVAL: Final = 0.3
"""Seconds between two attempts."""


async def lock(session: Session) -> None:
    """Become the only reader of the dead letters, until this session ends.

    Raises:
        DeadLettersInUseError: another command did not finish within `LOCK_LIMIT`.
        BrokerUnavailableError: RabbitMQ went away.
    """
    deadline = asyncio.get_running_loop().time() + LOCK_LIMIT
    waiting = False
    while not await _locked(session):
        if asyncio.get_running_loop().time() >= deadline:
            raise DeadLettersInUseError
        if not waiting:
            console.say("Another mms-admin reads the dead letters; waiting until it finishes")
            waiting = True
        await asyncio.sleep(POLL_INTERVAL)


async def _locked(session: Session) -> bool:
    with connection_errors():
        async with asyncio.timeout(CONNECT_LIMIT):
            channel = await session.connection.channel(publisher_confirms=False)
            try:
                await channel.declare_queue(LOCK, exclusive=True)
            except ChannelLockedResource:  # this error has closed the channel
                return False
            await channel.close()
            return True
