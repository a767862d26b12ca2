"""What a check has found, and what to do about it."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

import msgspec

from shared.log import mask

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
        follows: checks that explain this finding when they are wrong themselves, each by the
            beginning of its name.
    """

    check: str
    state: State
    found: str
    advice: str = ""
    follows: tuple[str, ...] = ()


def ok(check: str, found: str) -> Finding:
    """As it should be."""
    return Finding(check, State.OK, found)


def warning(check: str, found: str, advice: str, *, follows: tuple[str, ...] = ()) -> Finding:
    """Not as it should be, but everything works."""
    return Finding(check, State.WARNING, found, advice, follows)


def wrong(check: str, found: str, advice: str, *, follows: tuple[str, ...] = ()) -> Finding:
    """Something does not work, or does not keep what it promises."""
    return Finding(check, State.WRONG, found, advice, follows)


def judged(check: str, found: str, *, good: bool, advice: str) -> Finding:
    """`ok`, without the advice, when it is good, else `wrong`."""
    return ok(check, found) if good else wrong(check, found, advice)


def causes_first(findings: Iterable[Finding]) -> list[Finding]:
    """The findings in their order, but effects at the end, with their cause as the advice."""
    given = list(findings)
    broken = [each.check for each in given if each.state is State.WRONG]
    causes: list[Finding] = []
    effects: list[Finding] = []
    for each in given:
        cause = next((name for name in broken if name.startswith(each.follows)), "")
        if each.state is State.OK or not each.follows or not cause or cause == each.check:
            causes.append(each)
        else:
            advice = f"Mend {cause} first; this probably follows from it."
            effects.append(msgspec.structs.replace(each, advice=advice))
    return causes + effects


UNTRUSTED: Final = "Name the file of the authority that signed the certificate in MMS_TLS_CA."
"""The advice when a server's certificate is not believed."""


def reason(error: BaseException) -> str:
    """What an error says, in one line and without numbers; a time limit is named as one."""
    text = " ".join(str(error).split())
    if isinstance(error, TimeoutError) or not text:
        text = (
            f"no answer within {CALL_LIMIT:g} s"
            if isinstance(error, TimeoutError)
            else type(error).__name__
        )
    return mask(text)


def at_least(text: str, oldest: tuple[int, int]) -> bool:
    """Whether a version such as `3.10.8` or `7.0.15-rc1` is that of `oldest` or newer."""
    numbers = [int(part) for part in text.split(".")[:2] if part.isdigit()]
    return tuple(numbers) >= oldest
