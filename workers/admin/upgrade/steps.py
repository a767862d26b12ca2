"""Create `mms.dead` again with the arguments of this release, and keep every dead letter.

RabbitMQ cannot change the arguments of a queue. So a second queue takes the dead letters while
`mms.dead` is created again:

    1. `mms.dead.upgrade` is declared and bound beside `mms.dead`: it gets each new dead letter
    2. `mms.dead` is unbound, and its dead letters are moved to `mms.dead.upgrade`
    3. `mms.dead` is empty: it is deleted, declared again and bound
    4. `mms.dead.upgrade` is unbound, its dead letters are moved back, and it is deleted

At any moment each dead letter is in at least one of the queues, see `move`. The next step depends
only on the queues that exist, so the upgrade can be interrupted at any point and run again. After
that, a dead letter that arrived while both queues were bound, or that was being moved, may be there
twice, which is harmless. A process of the earlier release binds `mms.dead` again every
few seconds, which is harmless too.
"""

from collections.abc import Callable
from enum import Enum
from typing import Final

from aio_pika.abc import AbstractChannel
from pamqp.common import FieldTable

from shared.backoff import backoff
from shared.errors import TopologyConflictError, UpgradeError
from shared.process.cli import counted
from shared.rabbitmq import topology
from shared.rabbitmq.session import Session, open_session
from shared.settings.settings import Settings
from workers.admin.dead.lock import lock
from workers.admin.upgrade import move
from workers.admin.upgrade.calls import counts, delete, on_channel, unbind

SPARE: Final = "mms.dead.upgrade"
"""The queue that holds the dead letters meanwhile."""

MAX_ATTEMPTS: Final = 20
"""Times that older processes may declare `mms.dead` with the old arguments before this gives up."""


class Condition(Enum):
    """How a queue compares with what this release declares."""

    MISSING = "missing"
    OUTDATED = "outdated"
    CURRENT = "current"


async def upgrade(settings: Settings, say: Callable[[str], None], *, dry_run: bool = False) -> bool:
    """Give `mms.dead` the arguments of this release; return whether there was something to do.

    Args:
        say: prints a line about each step.
        dry_run: only print what would be done.

    Raises:
        BrokerUnavailableError, PublishOutcomeUnknownError: RabbitMQ went away. Run it again.
        UpgradeError: the upgrade is not possible now; the message says why.
        DeadLettersInUseError: another command reads the dead letters.
    """
    session = await open_session(
        settings, name="mms-admin topology upgrade", prefetch=move.WINDOW, declaring=False
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
        return outdated or await counts(self._session, SPARE) is not None

    async def preview(self) -> None:
        ready, _ = await counts(self._session, topology.DEAD) or (0, 0)
        spare = await counts(self._session, SPARE)
        if await self._condition() is Condition.OUTDATED:
            dead_letters = counted(ready, "dead letter")
            self._say(f"would create {topology.DEAD} again and keep its {dead_letters}")
        if spare is not None:
            dead_letters = counted(spare[0], "dead letter")
            self._say(f"would finish an interrupted upgrade: {dead_letters} in {SPARE}")

    async def replace(self) -> None:
        """Steps 1 to 3."""
        for attempt in range(MAX_ATTEMPTS):
            condition = await self._condition()
            if condition is Condition.OUTDATED:
                await self._empty_and_delete()
            if condition is not Condition.CURRENT and not await self._declared():
                self._say(f"an older process has declared {topology.DEAD} again; trying again")
                await backoff(attempt, longest=1.0)
                continue
            return
        raise UpgradeError(
            f"processes of an earlier release declare {topology.DEAD} again and again; stop them"
            " and run the upgrade again; nothing is lost"
        )

    async def move_back(self) -> None:
        """Step 4."""
        if await counts(self._session, SPARE) is None:
            return
        await self._declare_dead()
        await unbind(self._session, SPARE)
        moved = await move.move_all(self._session, SPARE, topology.DEAD, self._say)
        self._say(f"{counted(moved, 'dead letter')} moved back to {topology.DEAD}")
        await delete(self._session, SPARE)

    async def _empty_and_delete(self) -> None:
        self._say(f"new dead letters go to {SPARE}")
        await self._declare_spare()
        await unbind(self._session, topology.DEAD)
        moved = await move.move_all(self._session, topology.DEAD, SPARE, self._say)
        self._say(f"{counted(moved, 'dead letter')} moved to {SPARE}")
        await delete(self._session, topology.DEAD)
        self._say(f"{topology.DEAD} with its old arguments is deleted")

    async def _declared(self) -> bool:
        """Declare `mms.dead`; False if it exists and differs."""
        try:
            await self._declare_dead()
        except TopologyConflictError:
            return False
        self._say(f"{topology.DEAD} is declared with the arguments of this release")
        return True

    async def _condition(self) -> Condition:
        if await counts(self._session, topology.DEAD) is None:
            return Condition.MISSING
        try:  # it exists, so declaring it changes nothing
            await self._declare_dead()
        except TopologyConflictError:
            return Condition.OUTDATED
        return Condition.CURRENT

    async def _declare_dead(self) -> None:
        async def call(channel: AbstractChannel) -> None:
            await topology.declare_dead(channel, self._settings)

        await on_channel(self._session, call)

    async def _declare_spare(self) -> None:
        async def call(channel: AbstractChannel) -> None:
            arguments = _spare_arguments(self._settings)
            spare = await channel.declare_queue(SPARE, durable=True, arguments=arguments)
            await spare.bind(topology.DEAD)

        await on_channel(self._session, call)


def _spare_arguments(settings: Settings) -> FieldTable:
    replicas: FieldTable = (
        {"x-quorum-initial-group-size": settings.replicas} if settings.replicas else {}
    )
    limit: FieldTable = {"x-delivery-limit": topology.DEAD_DELIVERY_LIMIT}
    return {"x-queue-type": "quorum", **limit, **replicas}
