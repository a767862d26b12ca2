"""The first second of a command, while Python imports modules."""

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C end the process at once, without a traceback: no work has begun yet.

    Python would print a traceback of the import. Where Ctrl-C is ignored, as for a script's
    background jobs, it stays ignored. This module must import nothing that takes time.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
