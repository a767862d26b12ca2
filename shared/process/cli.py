"""What the commands have in common: settings in `--help`, clear errors, a clean stop."""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Final, NoReturn

import uvloop

from shared.errors import ComponentEndedError, PostbacksError
from shared.process import watchdog
from shared.settings.describe import describe

REFUSED: Final = 2
"""The exit status of a command that has printed an error for its operator, see `fail`."""

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def settings_help() -> str:
    """The settings as a block for the end of `--help`; click keeps its lines as they are."""
    rows = list(describe())
    width = max(len(row.variable) for row in rows)
    lines = [f"  {row.variable:<{width}}  {row.description} [{row.default}]" for row in rows]
    return "\n".join(
        [
            "\b",
            "Settings, from the environment or from the TOML file that MMS_CONFIG names",
            "(there in lower case and without MMS_); the environment wins:",
            *lines,
        ]
    )


def counted(count: int, one: str, many: str = "") -> str:
    """A count in words for people: `1 postback`, `2 postbacks`.

    Args:
        many: what several are called; empty: `one` with an s.
    """
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def run(main: Coroutine[object, object, None]) -> None:
    """Run a process's main coroutine; an error of ours becomes one line and an exit status."""
    watchdog.enable()
    try:
        uvloop.run(main)
    except PostbacksError as error:
        fail(error)
    except BaseExceptionGroup as errors:
        if (ours := errors.subgroup(PostbacksError)) is None:
            raise
        fail(ours)


def fail(errors: BaseExceptionGroup[PostbacksError] | PostbacksError) -> NoReturn:
    """Print what went wrong and leave: status 1 for a defect, 2 for what a person can mend."""
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    print(f"{sys.argv[0].rpartition('/')[2]}: {errors}", file=sys.stderr)  # noqa: T201
    raise SystemExit(1 if isinstance(errors, ComponentEndedError) else REFUSED)


def only_ours(error: BaseException) -> PostbacksError | None:
    """The first error of a group in which all are ours; None if one is not."""
    if not isinstance(error, BaseExceptionGroup):
        return error if isinstance(error, PostbacksError) else None
    known = [only_ours(each) for each in error.exceptions]
    return None if None in known else known[0]


def stop_event(limit: float = watchdog.END_LIMIT) -> asyncio.Event:
    """An event that SIGINT, SIGTERM and SIGHUP set instead of ending the process.

    Args:
        limit: seconds from the signal within which the process ends, whatever hangs.
    """
    event = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        watchdog.end_within(limit)
        event.set()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop)
    return event
