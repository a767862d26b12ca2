"""Python's garbage collector, tuned for a process that works in windows.

A window is thousands of objects. They live until the window is acknowledged and are in no
reference cycle, so looking for cycles among them finds nothing and takes time.
"""

import gc
from typing import Final

GC_THRESHOLD: Final = 20_000
"""New objects after which Python looks for cycles among them: about once for a window instead of
ten times."""


def tune_garbage_collector() -> None:
    """Look for cycles rarely, and never among the objects that exist now.

    Call it at the start: modules and metrics exist as long as the process.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
