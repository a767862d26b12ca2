"""Ends this process when it does not end by itself in time, for example because a disk hangs.

The timer is a thread of the Python interpreter, so a blocked event loop or a blocked thread does
not stop it. It writes the stack of each thread to standard error and exits with status 1.
"""

import faulthandler
from typing import Final

END_LIMIT: Final = 20.0
"""Seconds that a process may take to end after it was asked to."""

_enabled = False


def enable() -> None:
    """Enable the watchdog. Only commands do this, not a program that imports this package."""
    global _enabled  # noqa: PLW0603 - there is one process
    _enabled = True


def end_within(seconds: float) -> None:
    """Exit with status 1 after this number of seconds, unless the process has ended before."""
    if _enabled:
        faulthandler.dump_traceback_later(seconds, exit=True)
