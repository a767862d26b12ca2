"""The start of a command: its standard output, and Ctrl-C while Python imports modules."""

import contextlib
import io
import signal
import sys
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


def buffer_output() -> None:
    """Write standard output through a buffer, also with `PYTHONUNBUFFERED` or `python -u`.

    Without a buffer Python loses the rest of a long write to a pipe if a signal interrupts it, as
    Ctrl-Z and `fg` do. Each line is written as soon as it is complete.
    """
    raw = getattr(sys.stdout, "buffer", None)
    if isinstance(raw, io.RawIOBase):
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=sys.stdout.encoding,
            errors=sys.stdout.errors,
            line_buffering=True,
        )
