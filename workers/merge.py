"""Merge postbacks into the state: wait for Redis while it is away; isolate postbacks that fail."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from shared.backoff import backoff
from shared.errors import StateUnavailableError
from shared.postback.codes import Track
from shared.postback.dead_letter import DeadLetter
from shared.postback.event import Event
from workers import metrics, outcome_metrics
from workers.dead_letters import failed_postback, refused_postbacks
from workers.store import Store
from workers.verdicts import DueEvent, Merged, Received, Unmergeable, due_events

REDIS_WAIT_LIMIT: Final = 10.0
"""Seconds to wait for Redis with unacknowledged batches, before they are requeued."""

RETRY_PAUSE_LIMIT: Final = 2.0
"""Seconds between two tries at most."""

Merge = Callable[[Sequence[Received]], Awaitable[list[Merged | Unmergeable]]]

log: Final = logging.getLogger(__name__)


class WindowResult(NamedTuple):
    """The result of merging a window.

    Attributes:
        merged: one for each record.
        due: the events that are due.
        dead: the postbacks that could not be merged.
    """

    merged: list[Merged]
    due: list[DueEvent]
    dead: list[DeadLetter]


async def merge_window(store: Store, received: Sequence[Received]) -> WindowResult:
    """Merge postbacks, and find the events that are due.

    An unexpected error, other than the absence of Redis, would happen again. So the window is
    halved until the postbacks that cause the error are alone. They become dead letters, and all
    others are merged.

    Raises:
        StateUnavailableError: Redis stayed away longer than `REDIS_WAIT_LIMIT`.
    """
    if not received:
        return WindowResult([], [], [])
    try:
        return _window_result(await merge_or_wait(store.merge, received, REDIS_WAIT_LIMIT))
    except StateUnavailableError:
        raise
    except Exception as error:  # noqa: BLE001 - the cause is in one of these postbacks
        if len(received) == 1:
            (only,) = received
            return WindowResult([], [], [failed_postback(only.arrival, only.batch_id, error)])
    # Some of them may be merged by now. Their events are due all the same.
    received = _redelivered(received)
    half = len(received) // 2
    first = await merge_window(store, received[:half])
    second = await merge_window(store, received[half:])
    return WindowResult(
        first.merged + second.merged, first.due + second.due, first.dead + second.dead
    )


async def merge_or_wait(
    merge: Merge, received: Sequence[Received], wait_limit: float
) -> list[Merged | Unmergeable]:
    """Merge postbacks; while Redis is away, try again.

    Args:
        merge: `Store.merge`, or a function that calls it.
        wait_limit: seconds; it does not try again when an error comes after them.

    Raises:
        StateUnavailableError: Redis stayed away longer than `wait_limit`.
    """
    deadline = asyncio.get_running_loop().time() + wait_limit
    attempt = 0
    while True:
        try:
            with metrics.REDIS_TIME.time():
                return await merge(received)
        except StateUnavailableError as error:
            if asyncio.get_running_loop().time() >= deadline:
                raise
            if attempt == 0:
                log.warning("waiting for Redis: %s", error)
            # Redis may have merged some of them before it failed. They are not new in the next
            # try, but their events are due all the same.
            received = _redelivered(received)
            await backoff(attempt, longest=RETRY_PAUSE_LIMIT)
            attempt += 1


def _redelivered(received: Sequence[Received]) -> list[Received]:
    return [each._replace(redelivered=True) for each in received]


def _window_result(results: Sequence[Merged | Unmergeable]) -> WindowResult:
    merged = [each for each in results if isinstance(each, Merged)]
    refused = [each for each in results if isinstance(each, Unmergeable)]
    due: list[DueEvent] = []
    for each in merged:
        for due_event in due_events(each):
            due.append(due_event)
            _count_outcome(each, due_event.event, due_event.received.normalised.track)
    dead = [dead_letter for each in refused for dead_letter in refused_postbacks(each)]
    return WindowResult(merged, due, dead)


def _count_outcome(merged: Merged, event: Event, track: Track) -> None:
    """Count an outcome if this merge has changed it: the postback that decides the track is new."""
    new = {str(received.normalised.rank) for received in merged.new()}
    if event.sequence not in new or merged.record is None:
        return
    before = next((e for e in merged.record.of(track) if str(e.rank) not in new), None)
    terminal = before is not None and before.rank.terminal
    outcome_metrics.count(merged.record, track, before.postback if before and terminal else None)
