"""What all commands share: settings in `--help`, one line for an error, a stop on a signal."""

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
    """The settings as a block for the end of `--help`; click does not wrap its lines."""
    rows = list(describe())
    width = max(len(row.variable) for row in rows)
    lines = [f"  {row.variable:<{width}}  {row.description} [{row.default}]" for row in rows]
    return "\n".join(
        [
            "\b",
            "Settings, from the environment or from the TOML file that MMS_CONFIG names (in the",
            "file: lower case, without MMS_). The environment wins.",
            *lines,
        ]
    )


def counted(count: int, one: str, many: str = "") -> str:
    """A number with its noun: `1 postback`, `2 postbacks`.

    Args:
        many: the plural; empty: `one` with an s.
    """
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def run(main: Coroutine[object, object, None]) -> None:
    """Run the main coroutine of a process; a `PostbacksError` becomes a line and an exit status."""
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
    """Print the error and exit: status 1 when a component ended, 2 when an operator must act."""
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    print(f"{sys.argv[0].rpartition('/')[2]}: {errors}", file=sys.stderr)  # noqa: T201
    raise SystemExit(1 if isinstance(errors, ComponentEndedError) else REFUSED)


def only_ours(error: BaseException) -> PostbacksError | None:
    """The first error of a group that has only `PostbacksError`s; None if it has another one."""
    if not isinstance(error, BaseExceptionGroup):
        return error if isinstance(error, PostbacksError) else None
    known = [only_ours(each) for each in error.exceptions]
    return None if None in known else known[0]


def stop_event(limit: float = watchdog.END_LIMIT) -> asyncio.Event:
    """An event that SIGINT, SIGTERM and SIGHUP set; the process then ends by itself.

    Args:
        limit: seconds from the signal after which the watchdog ends the process.
    """
    event = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        watchdog.end_within(limit)
        event.set()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop)
    return event
