"""What a check has found, and what to do about it."""

from collections.abc import AsyncIterator, Callable
from enum import StrEnum
from typing import Final

import msgspec

from shared.settings import Settings

CALL_LIMIT: Final = 5.0
"""Seconds that a server may take for one answer."""


class State(StrEnum):
    """How a check came out. A warning needs a look, what is wrong needs a hand."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One check's result.

    Attributes:
        check: what was looked at, `<what> <which part>`.
        found: what is so; never a secret or a phone number.
        advice: what to do about it; empty when there is nothing to do.
    """

    check: str
    state: State
    found: str
    advice: str = ""


Check = Callable[[Settings], AsyncIterator[Finding]]
"""Looks at one part of the site. Changes nothing that lasts and raises nothing of the site's."""


def ok(check: str, found: str) -> Finding:
    """As it should be."""
    return Finding(check, State.OK, found)


def warning(check: str, found: str, advice: str) -> Finding:
    """Not as it should be, but everything works."""
    return Finding(check, State.WARNING, found, advice)


def wrong(check: str, found: str, advice: str) -> Finding:
    """Something does not work, or does not keep what it promises."""
    return Finding(check, State.WRONG, found, advice)


def judged(check: str, found: str, *, good: bool, advice: str) -> Finding:
    """`ok`, without the advice, when it is good, else `wrong`."""
    return ok(check, found) if good else wrong(check, found, advice)


def at_least(text: str, oldest: tuple[int, int]) -> bool:
    """Whether a version such as `3.10.8` or `7.0.15-rc1` is that of `oldest` or newer."""
    numbers = [int(part) for part in text.split(".")[:2] if part.isdigit()]
    return tuple(numbers) >= oldest
