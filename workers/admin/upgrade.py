"""Make `mms.dead` anew with the arguments of this release, and keep every dead letter.

RabbitMQ cannot change the arguments of a queue. So a second queue takes the dead letters while the
first is made anew:

    1. `mms.dead.upgrade` is declared and bound beside `mms.dead`: from now on it gets each new one
    2. `mms.dead` is unbound, and what is in it is moved to `mms.dead.upgrade`
    3. `mms.dead` is empty: it is deleted, declared anew and bound
    4. `mms.dead.upgrade` is unbound, what is in it is moved back, and it is deleted

Each dead letter is at any moment in at least one of them: one is removed from a queue only after
RabbitMQ has confirmed it in the other. What the next step is depends only on what is there, so this
can be interrupted at any point and run again. A dead letter that arrives while both queues are
bound, or is being moved at an interruption, is there twice afterwards; that is harmless. A process
of the release before binds `mms.dead` again every few seconds; that does no harm either.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import Final, TypeVar

from aio_pika.abc import AbstractChannel
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelNotFoundEntity
from pamqp.commands import Basic
from pamqp.common import FieldTable

from shared.errors import BrokerUnavailableError, TopologyConflictError, UpgradeError
from shared.process.cli import counted
from shared.rabbitmq import topology
from shared.rabbitmq.confirms import Message
from shared.rabbitmq.session import Session, backoff, connection_errors, open_session
from shared.settings.settings import Settings
from workers.admin.dead.lock import lock
from workers.admin.stream import Reader

T = TypeVar("T")

SPARE: Final = "mms.dead.upgrade"
"""The queue that has the dead letters meanwhile."""

WINDOW: Final = 200
"""Dead letters that are moved together."""

SILENCE: Final = 0.5
"""Seconds without a message after which a queue is asked whether it is empty."""

MOVE_LIMIT: Final = 30.0
"""Seconds that RabbitMQ may take to confirm a window."""

STEP_LIMIT: Final = 15.0
"""Seconds that RabbitMQ may take to declare, bind, count or delete."""

IDLE_LIMIT: Final = 60.0
"""Seconds to wait for others to stop consuming `mms.dead`."""

ROUNDS: Final = 20
"""Times that `mms.dead` may come back with its old arguments before this gives up."""

REPORT_EVERY: Final = 10_000

_ADDED: Final = ("x-delivery-count", "x-acquired-count")
"""Headers that RabbitMQ adds to what it delivers again."""


class Condition(Enum):
    """What there is of a queue."""

    MISSING = "missing"
    OUTDATED = "outdated"
    CURRENT = "current"


async def upgrade(settings: Settings, say: Callable[[str], None], *, dry_run: bool = False) -> bool:
    """Bring `mms.dead` to the arguments of this release; whether there was something to do.

    Args:
        say: told of each step.
        dry_run: only tell what would be done.

    Raises:
        BrokerUnavailableError, PublishOutcomeUnknownError: RabbitMQ went away. Run it again.
        UpgradeError: it cannot be done now; says why.
        DeadLettersInUseError: another command goes through the dead letters.
    """
    session = await open_session(
        settings, name="mms-admin topology upgrade", prefetch=WINDOW, declaring=False
    )
    try:
        work = _Upgrade(session, settings, say)
        if not await work.is_needed():
            return False
        if dry_run:
            await work.preview()
            return True
        await lock(session)
        await work.replace()
        await work.move_back()
        say("done")
        return True
    finally:
        await session.close()


class _Upgrade:
    def __init__(self, session: Session, settings: Settings, say: Callable[[str], None]) -> None:
        self._session = session
        self._settings = settings
        self._say = say

    async def is_needed(self) -> bool:
        outdated = await self._condition() is Condition.OUTDATED
        return outdated or await self._ready(SPARE) is not None

    async def preview(self) -> None:
        there = await self._ready(topology.DEAD)
        spare = await self._ready(SPARE)
        if await self._condition() is Condition.OUTDATED:
            letters = counted(there or 0, "dead letter")
            self._say(f"would make {topology.DEAD} anew and keep its {letters}")
        if spare is not None:
            letters = counted(spare, "dead letter")
            self._say(f"would finish an upgrade that was interrupted: {letters} in {SPARE}")

    async def replace(self) -> None:
        """Steps 1 to 3."""
        for attempt in range(ROUNDS):
            condition = await self._condition()
            if condition is Condition.OUTDATED:
                await self._empty_and_delete()
            if condition is not Condition.CURRENT and not await self._declared():
                self._say(f"an older process has declared {topology.DEAD} again; once more")
                await backoff(attempt, longest=1.0)
                continue
            return
        raise UpgradeError(
            f"Processes of an older release declare {topology.DEAD} again and again; stop them and"
            " run the upgrade again. Nothing is lost."
        )

    async def move_back(self) -> None:
        """Step 4."""
        if await self._ready(SPARE) is None:
            return
        await self._on_channel(lambda channel: topology.declare_dead(channel, self._settings))
        await self._on_channel(lambda channel: _unbind(channel, SPARE))
        moved = await self._move(SPARE, topology.DEAD)
        self._say(f"{counted(moved, 'dead letter')} moved back to {topology.DEAD}")
        await self._delete(SPARE)

    async def _empty_and_delete(self) -> None:
        self._say(f"new dead letters go to {SPARE}")
        await self._on_channel(lambda channel: _declare_spare(channel, self._settings))
        await self._on_channel(lambda channel: _unbind(channel, topology.DEAD))
        moved = await self._move(topology.DEAD, SPARE)
        self._say(f"{counted(moved, 'dead letter')} moved to {SPARE}")
        await self._delete(topology.DEAD)
        self._say(f"{topology.DEAD} with its old arguments is deleted")

    async def _move(self, source: str, target: str) -> int:
        """Move all messages; return how many, once the source is empty and nobody consumes it."""
        moved = 0
        deadline = asyncio.get_running_loop().time() + IDLE_LIMIT
        while True:
            reader = Reader(self._session, source)
            await reader.start()
            while window := await _window(reader, SILENCE):
                await self._pass_on(reader, window, target)
                moved += len(window)
                if moved % REPORT_EVERY < len(window):
                    self._say(f"{moved} dead letters moved to {target} so far")
                deadline = asyncio.get_running_loop().time() + IDLE_LIMIT
            await reader.stop()
            while window := await _window(reader, 0.0):  # came before it was stopped
                await self._pass_on(reader, window, target)
                moved += len(window)
            ready, consumers = await self._on_channel(lambda channel: _counts(channel, source))
            if not ready and not consumers:
                return moved
            if asyncio.get_running_loop().time() >= deadline:
                raise UpgradeError(
                    f"Somebody else consumes {source} and may hold dead letters; end that (perhaps"
                    " an mms-admin of an older release) and run the upgrade again. Nothing is lost."
                )

    async def _pass_on(
        self, reader: Reader, window: Sequence[DeliveredMessage], target: str
    ) -> None:
        for part in _distinct(window):
            messages = [
                Message(each.body, "", target, _properties(each.header.properties)) for each in part
            ]
            for answer in await self._session.publish_all(messages, MOVE_LIMIT):
                if answer is not None:
                    raise UpgradeError(
                        f"{target} did not take a dead letter ({answer}). Nothing is lost; run the"
                        " upgrade again."
                    )
        await reader.acknowledge(window[-1], multiple=True)

    async def _delete(self, queue: str) -> None:
        async def delete(channel: AbstractChannel) -> None:
            await channel.queue_delete(queue)

        await self._on_channel(delete)

    async def _declared(self) -> bool:
        """Declare `mms.dead` as this release has it; False if it is there and differs."""
        try:
            await self._on_channel(lambda channel: topology.declare_dead(channel, self._settings))
        except TopologyConflictError:
            return False
        self._say(f"{topology.DEAD} is declared with the arguments of this release")
        return True

    async def _condition(self) -> Condition:
        if await self._ready(topology.DEAD) is None:
            return Condition.MISSING
        try:  # it exists, so declaring changes nothing
            await self._on_channel(lambda channel: topology.declare_dead(channel, self._settings))
        except TopologyConflictError:
            return Condition.OUTDATED
        return Condition.CURRENT

    async def _ready(self, queue: str) -> int | None:
        """How many messages wait in a queue; None if there is no such queue."""
        try:
            return (await self._on_channel(lambda channel: _counts(channel, queue)))[0]
        except BrokerUnavailableError as error:
            if isinstance(error.__cause__, ChannelNotFoundEntity):
                return None
            raise

    async def _on_channel(self, do: Callable[[AbstractChannel], Awaitable[T]]) -> T:
        """Do something on a channel of its own: RabbitMQ closes the channel to refuse.

        Raises:
            BrokerUnavailableError: RabbitMQ refused, does not answer, or the connection is lost.
        """
        with connection_errors():
            async with asyncio.timeout(STEP_LIMIT):
                channel = await self._session.connection.channel(publisher_confirms=False)
                result = await do(channel)
                await channel.close()
                return result


async def _counts(channel: AbstractChannel, queue: str) -> tuple[int, int]:
    """How many messages wait in a queue, and how many consumers it has."""
    declared = await channel.declare_queue(queue, passive=True)
    found = declared.declaration_result
    return found.message_count or 0, found.consumer_count or 0


async def _declare_spare(channel: AbstractChannel, settings: Settings) -> None:
    spare = await channel.declare_queue(SPARE, durable=True, arguments=_spare_arguments(settings))
    await spare.bind(topology.DEAD)


def _spare_arguments(settings: Settings) -> FieldTable:
    replicas: FieldTable = (
        {"x-quorum-initial-group-size": settings.replicas} if settings.replicas else {}
    )
    limit: FieldTable = {"x-delivery-limit": topology.DEAD_DELIVERY_LIMIT}
    return {"x-queue-type": "quorum", **limit, **replicas}


async def _unbind(channel: AbstractChannel, queue: str) -> None:
    declared = await channel.get_queue(queue, ensure=False)
    await declared.unbind(topology.DEAD)


async def _window(reader: Reader, limit: float) -> list[DeliveredMessage]:
    """The next messages; none when none came for `limit` seconds."""
    window: list[DeliveredMessage] = []
    while len(window) < WINDOW and (message := await reader.next(0.0 if window else limit)):
        window.append(message)
    return window


def _distinct(window: Sequence[DeliveredMessage]) -> list[list[DeliveredMessage]]:
    """The same messages in parts, each without a message id that is there twice."""
    parts: list[list[DeliveredMessage]] = [[]]
    ids: set[str] = set()
    for each in window:
        message_id = each.header.properties.message_id
        if message_id and message_id in ids:
            parts.append([])
            ids = set()
        ids.add(message_id or "")
        parts[-1].append(each)
    return parts


def _properties(properties: Basic.Properties) -> Basic.Properties:
    """As they were published: without what RabbitMQ adds to a message that it delivers again."""
    for name in _ADDED:
        (properties.headers or {}).pop(name, None)
    return properties
