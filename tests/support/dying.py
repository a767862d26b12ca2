"""A worker that kills itself with SIGKILL at a step of its n-th window.

It is the real process, killed at an instruction that a random kill rarely hits.

    python -m tests.support.dying <step> <window>
"""

import itertools
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import workers.consumer
import workers.main
import workers.worker

P = ParamSpec("P")
T = TypeVar("T")


def dying(
    step: Callable[P, Awaitable[T]], window: int, *, before: bool
) -> Callable[P, Awaitable[T]]:
    """The same step, which kills the process before or after its n-th call."""
    calls = itertools.count(1)

    async def run(*args: P.args, **kwargs: P.kwargs) -> T:
        last = next(calls) == window
        if last and before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = await step(*args, **kwargs)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return run


STEPS = {
    "after-state": (workers.worker, "process_window", False),
    "after-events": (workers.worker, "publish_outbox", False),
    "before-acknowledgement": (workers.consumer.Consumer, "acknowledge", True),
}


def main() -> None:
    """Patch the step and run the worker."""
    step, window = sys.argv[1], int(sys.argv[2])
    sys.argv = ["mms-worker"]
    owner, name, before = STEPS[step]
    setattr(owner, name, dying(getattr(owner, name), window, before=before))
    workers.main.main()


if __name__ == "__main__":
    main()
