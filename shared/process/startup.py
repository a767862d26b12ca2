"""The first second of a command, in which Python only imports."""

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C end the process at once, as it ends other programs: nothing has begun yet.

    Python would print a traceback of whatever it was importing. Where Ctrl-C is ignored, as in a
    script's background, it stays ignored. This module must import nothing that takes time.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
