"""When to send which postback: new ones in order at the wanted rate, and resends when due.

Resends do not delay the other postbacks. They wait in a heap and go first when they are due.
"""

import asyncio
import heapq
import random
from array import array
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from ingest.simulate.lifecycles import Messages
from ingest.simulate.options import Options


class Post(NamedTuple):
    """One POST to make. The smallest is due first.

    Attributes:
        due: when, on the event loop's clock; 0: at once.
        number: of the postback.
        copy: 0, or 1 for a duplicate, which has a wording of its own.
        resends: how many attempts were made before.
    """

    due: float
    number: int
    copy: int
    resends: int = 0


def jobs(messages: Messages, options: Options) -> Iterator[list[Post]]:
    """What to send, in order. The POSTs of one job are made one after another.

    In order, a job is a message with its duplicates at the end. Shuffled, it is a single POST.
    """
    dice = random.Random(messages.seed)  # noqa: S311
    if not options.shuffle:
        for message in messages:
            posts = [Post(0.0, message.first + at, 0) for at in message.in_time()]
            duplicated = [post for post in posts if dice.random() < options.duplicates]
            yield posts + [post._replace(copy=1) for post in duplicated]
        return
    numbers = range(messages.postbacks)
    order = array("Q", (number << 1 for number in numbers))
    order.extend(number << 1 | 1 for number in numbers if dice.random() < options.duplicates)
    dice.shuffle(order)
    for each in order:
        yield [Post(0.0, each >> 1, each & 1)]


CATCH_UP: Final = 0.1
"""Seconds of POSTs that may be sent late in a burst, so that the average rate is kept."""


class Schedule:
    """Hands out jobs: resends that are due first, then new postbacks at the wanted rate.

    Args:
        rate: POSTs a second; 0: no limit.
    """

    def __init__(self, new: Iterator[list[Post]], rate: float) -> None:
        self._resends: list[Post] = []
        self._new = new
        self._in_progress = 0
        self._changed = asyncio.Event()
        self._stopped = asyncio.Event()
        self._interval = 1.0 / rate if rate > 0 else 0.0
        self._next_at = 0.0
        self._pacing = asyncio.Lock()

    async def take(self) -> Sequence[Post] | None:
        """The next job, when it is due; None when there are no more."""
        while not self._stopped.is_set():
            job = self._due() or next(self._new, None)
            if job is not None:
                self._in_progress += 1
                return job
            if not (self._in_progress or self._resends):
                self._changed.set()
                return None
            await self._wait()
        return None

    def done(self) -> None:
        """Finish a job that `take` returned. Its failed POSTs were passed to `resend` before."""
        self._in_progress -= 1
        if not self._in_progress:
            self._changed.set()

    def resend(self, post: Post) -> None:
        """Hand out this POST again when it is due."""
        heapq.heappush(self._resends, post)
        self._changed.set()

    async def paced(self) -> bool:
        """Wait until the rate allows the next POST; False when sending has stopped."""
        if self._interval:
            async with self._pacing:
                now = asyncio.get_running_loop().time()
                # After a time when nothing could be sent, there is no burst to catch up.
                self._next_at = max(now - CATCH_UP, self._next_at) + self._interval
                await wait_for_event(self._stopped, self._next_at - now)
        return not self._stopped.is_set()

    async def stop_after(self, deadline: float | None, stop: asyncio.Event) -> None:
        """Stop when the deadline (seconds; None: never) has passed or the event is set."""
        await wait_for_event(stop, deadline)
        self._stopped.set()
        self._changed.set()

    def _due(self) -> list[Post] | None:
        if self._resends and self._resends[0].due <= asyncio.get_running_loop().time():
            return [heapq.heappop(self._resends)]
        return None

    async def _wait(self) -> None:
        """Return when a resend is due or something else has changed."""
        self._changed.clear()
        now = asyncio.get_running_loop().time()
        await wait_for_event(self._changed, self._resends[0].due - now if self._resends else None)


async def wait_for_event(event: asyncio.Event, limit: float | None) -> None:
    """Return when the event is set, or after so many seconds (None: no limit)."""
    if limit is not None and limit <= 0:
        return
    try:
        async with asyncio.timeout(limit):
            await event.wait()
    except TimeoutError:
        pass
