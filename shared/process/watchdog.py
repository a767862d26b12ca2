"""Ends a process of ours that was told to end and does not, whatever hangs in it.

The timer is a thread of the interpreter's own, so neither a blocked event loop nor a thread that
waits for a disk holds it up. It writes where each thread is, and exits with status 1.
"""

import faulthandler
from typing import Final

END_LIMIT: Final = 20.0
"""Seconds that a process may take to end."""

_enabled = False


def enable() -> None:
    """Allow this process to be ended; only the commands do, a program that imports us does not."""
    global _enabled  # noqa: PLW0603 - there is one process
    _enabled = True


def end_within(seconds: float) -> None:
    """Exit with status 1 after so many seconds, unless the process has ended before."""
    if _enabled:
        faulthandler.dump_traceback_later(seconds, exit=True)
