"""Exponential backoff between attempts to reach a server."""

import asyncio
from typing import Final

from shared.cancellation import raise_lost_cancellation

FIRST_DELAY: Final = 0.1
"""Seconds before the first repetition; each further delay is twice as long."""

LONGEST_DELAY: Final = 5.0
"""Seconds."""

_MAX_DOUBLINGS: Final = 10


async def backoff(attempt: int, *, longest: float = LONGEST_DELAY) -> None:
    """Sleep after failed attempt number `attempt`, counted from 0.

    Args:
        longest: seconds that the delay never exceeds.
    """
    raise_lost_cancellation()
    await asyncio.sleep(min(longest, FIRST_DELAY * 2.0 ** min(attempt, _MAX_DOUBLINGS)))
