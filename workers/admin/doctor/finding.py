"""The result of a check: what is so, and what to do about it."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

import msgspec

from shared.log import mask

CALL_LIMIT: Final = 5.0
"""Seconds that a server may take for one response."""


class State(StrEnum):
    """The result of a check: a warning needs attention, something wrong needs a repair."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One check's result.

    Attributes:
        check: what was checked, `<what> <which part>`.
        found: the facts; never a secret or a phone number.
        advice: what to do; empty when there is nothing to do.
        follows: checks that are the cause of this finding when they are wrong, each by the
            beginning of its name.
    """

    check: str
    state: State
    found: str
    advice: str = ""
    follows: tuple[str, ...] = ()


def ok(check: str, found: str) -> Finding:
    """The check found nothing wrong."""
    return Finding(check, State.OK, found)


def warning(check: str, found: str, advice: str, *, follows: tuple[str, ...] = ()) -> Finding:
    """Everything works, but something needs attention."""
    return Finding(check, State.WARNING, found, advice, follows)


def wrong(check: str, found: str, advice: str, *, follows: tuple[str, ...] = ()) -> Finding:
    """Something does not work, or breaks a guarantee."""
    return Finding(check, State.WRONG, found, advice, follows)


def judged(check: str, found: str, *, good: bool, advice: str) -> Finding:
    """`ok` without the advice if it is good, else `wrong`."""
    return ok(check, found) if good else wrong(check, found, advice)


def causes_first(findings: Iterable[Finding]) -> list[Finding]:
    """The findings in their order, with effects at the end; their advice names the cause."""
    ordered = list(findings)
    broken = [each.check for each in ordered if each.state is State.WRONG]
    causes: list[Finding] = []
    effects: list[Finding] = []
    for each in ordered:
        cause = next((name for name in broken if name.startswith(each.follows)), "")
        if each.state is State.OK or not each.follows or not cause or cause == each.check:
            causes.append(each)
        else:
            advice = f"Repair {cause} first; it is probably the cause."
            effects.append(msgspec.structs.replace(each, advice=advice))
    return causes + effects


UNTRUSTED: Final = "Set MMS_TLS_CA to the file of the authority that signed the certificate."
"""The advice when a server's certificate is not trusted."""


def reason(error: BaseException) -> str:
    """The text of an error in one short line, without phone numbers; a timeout names its limit."""
    text = " ".join(str(error).split())
    if isinstance(error, TimeoutError) or not text:
        text = (
            f"no response within {CALL_LIMIT:g} s"
            if isinstance(error, TimeoutError)
            else type(error).__name__
        )
    return mask(text[:REASON_LIMIT])


REASON_LIMIT: Final = 300
"""Characters of an error's text that are shown: a server can send an error of any length."""


def at_least(text: str, oldest: tuple[int, int]) -> bool:
    """Whether a version such as `3.10.8` or `7.0.15-rc1` is `oldest` or newer."""
    numbers = [int(part) for part in text.split(".")[:2] if part.isdigit()]
    return tuple(numbers) >= oldest
