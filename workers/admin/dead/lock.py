"""One reader of `mms.dead` at a time.

Whoever goes through the dead letters holds them meanwhile. A second command would see only what
the first has not taken yet, and report that. So a command declares an exclusive queue first, which
RabbitMQ allows to one connection and deletes with it; the next command waits.
"""

import asyncio
from typing import Final

from aiormq.exceptions import ChannelLockedResource

from shared.errors import DeadLettersInUseError
from shared.rabbitmq.session import CONNECT_LIMIT, Session, connection_errors
from workers.admin import console

LOCK: Final = "mms.dead.lock"
LOCK_LIMIT: Final = 60.0
POLL: Final = 0.3
"""Seconds to wait for another command to finish; seconds between two attempts."""


async def lock(session: Session) -> None:
    """Be the only reader of the dead letters until this session ends.

    Raises:
        DeadLettersInUseError: another one did not finish within `LOCK_LIMIT`.
        BrokerUnavailableError: RabbitMQ went away.
    """
    deadline = asyncio.get_running_loop().time() + LOCK_LIMIT
    waiting = False
    while not await _locked(session):
        if asyncio.get_running_loop().time() >= deadline:
            raise DeadLettersInUseError
        if not waiting:
            console.say("Another mms-admin goes through the dead letters; waiting until it is done")
            waiting = True
        await asyncio.sleep(POLL)


async def _locked(session: Session) -> bool:
    with connection_errors():
        async with asyncio.timeout(CONNECT_LIMIT):
            channel = await session.connection.channel(publisher_confirms=False)
            try:
                await channel.declare_queue(LOCK, exclusive=True)
            except ChannelLockedResource:  # it has closed the channel
                return False
            await channel.close()
            return True
