"""Cancellations that a library loses.

`asyncio.wait_for` of Python 3.11 loses a cancellation when its awaitable finishes at the same
moment. Other libraries turn a `CancelledError` into an error of their own. A task that goes on
after an error would then never stop.
"""

import asyncio


def cancelled_from_outside() -> bool:
    """Whether this task was cancelled, as opposed to a library that cancels what it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def raise_lost_cancellation() -> None:
    """Raise the `CancelledError` that a library has lost, if there is one.

    Every loop that goes on after an error calls this.
    """
    if cancelled_from_outside():
        raise asyncio.CancelledError
