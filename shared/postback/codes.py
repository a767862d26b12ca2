"""The provider's codes and status texts, and the outcomes that they stand for.

Source: the provider's public pages on MMS postbacks, postback notification codes and delivery
report statuses. The code gives the track of a postback and its default outcome. For a few codes
("status was updated") the status text decides. A text that is in no table never counts as a
delivery: it may be the provider's word for the opposite.
"""

import re
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple


class Track(StrEnum):
    """What a postback reports on. Message and discovery share a tracking-id but not an outcome."""

    MESSAGE = "message"
    DISCOVERY = "discovery"
    TEMPLATE = "template"


class Outcome(StrEnum):
    """The state that a postback reports; see `TERMINAL_PHASE` for which of them are terminal."""

    ACCEPTED = "accepted"
    SENT = "sent"
    DELIVERED = "delivered"
    EXPIRED = "expired"
    REJECTED = "rejected"
    FAILED = "failed"
    UNSUPPORTED = "unsupported"
    UNRECOGNISED = "unrecognised"
    UNREACHABLE = "unreachable"
    INDETERMINATE = "indeterminate"
    DEFERRED = "deferred"
    READY = "ready"


class Code(NamedTuple):
    """One row of the table.

    Attributes:
        track: what the postback reports on.
        outcome: the outcome where no status text refines it.
        refined: whether the status text decides.
    """

    track: Track
    outcome: Outcome
    refined: bool = False


_M, _D, _T = Track.MESSAGE, Track.DISCOVERY, Track.TEMPLATE

CODES: Final[dict[str, Code]] = {
    "N013": Code(_M, Outcome.ACCEPTED),
    "N101": Code(_M, Outcome.SENT),
    "N102": Code(_M, Outcome.DELIVERED, refined=True),
    "N103": Code(_M, Outcome.EXPIRED),
    "N202": Code(_M, Outcome.DELIVERED, refined=True),
    "E011": Code(_M, Outcome.FAILED),
    "E012": Code(_M, Outcome.FAILED),
    "E013": Code(_M, Outcome.FAILED),
    "E101": Code(_M, Outcome.FAILED),
    "E102": Code(_M, Outcome.FAILED, refined=True),
    "E202": Code(_M, Outcome.FAILED, refined=True),
    "E999": Code(_M, Outcome.FAILED),
    "N501": Code(_D, Outcome.SENT),
    "N502": Code(_D, Outcome.DELIVERED, refined=True),
    "E501": Code(_D, Outcome.FAILED),
    "E502": Code(_D, Outcome.FAILED, refined=True),
    "N003": Code(_T, Outcome.READY),
    "E002": Code(_T, Outcome.FAILED),
    "E003": Code(_T, Outcome.FAILED),
    "E004": Code(_T, Outcome.FAILED),
}

# The last part of a status text, in lower case and without spaces: our spelling, and its outcome.
_STATUS_WORDS: Final[dict[str, tuple[str, Outcome]]] = {
    "delivered": ("Delivered", Outcome.DELIVERED),
    "retrieved": ("Retrieved", Outcome.DELIVERED),
    "success": ("Success", Outcome.DELIVERED),
    "expired": ("Expired", Outcome.EXPIRED),
    "rejected": ("Rejected", Outcome.REJECTED),
    "failed": ("Failed", Outcome.FAILED),
    "notsupported": ("Not Supported", Outcome.UNSUPPORTED),
    "unrecognised": ("Unrecognised", Outcome.UNRECOGNISED),
    "unrecognized": ("Unrecognised", Outcome.UNRECOGNISED),
    "unreachable": ("Unreachable", Outcome.UNREACHABLE),
    "indeterminate": ("Indeterminate", Outcome.INDETERMINATE),
    "deferred": ("Deferred", Outcome.DEFERRED),
    "forwarded": ("Forwarded", Outcome.SENT),
    "sent": ("Sent", Outcome.SENT),
}

# XML writes `Message Sent/Expired` or `Message Failed` where JSON writes the last word alone.
_XML_WORDING: Final = re.compile(r"^\s*message(\s+sent\s*/|\s)", re.IGNORECASE)

# A phase is the first digit of a rank: a later step of a message's life has a higher phase. A
# delivery outranks every failure, because a delivered message stays delivered. For templates a
# failure outranks `ready`, because a corrupt MMS stays corrupt.
_PHASES: Final[dict[Outcome, int]] = {
    Outcome.ACCEPTED: 1,
    Outcome.SENT: 2,
    Outcome.DEFERRED: 2,
    Outcome.EXPIRED: 3,
    Outcome.REJECTED: 3,
    Outcome.FAILED: 3,
    Outcome.UNSUPPORTED: 3,
    Outcome.UNRECOGNISED: 3,
    Outcome.UNREACHABLE: 3,
    Outcome.INDETERMINATE: 3,
    Outcome.DELIVERED: 4,
    Outcome.READY: 3,
}
_TEMPLATE_FAILED_PHASE: Final = 4
TERMINAL_PHASE: Final = 3
"""The lowest phase of a terminal outcome."""


def canonical_status(text: str) -> str:
    """The one spelling of a status text that JSON and XML write differently.

    `Message Sent/Delivered`, `delivered` and ` Delivered ` are all `Delivered`. A text that is in
    no table keeps its words, without the words that only XML writes before them.
    """
    known = _status_word(text)
    return known[0] if known else _XML_WORDING.sub("", text, count=1).strip() or text.strip()


def outcome_of(code: str, status: str | None) -> Outcome:
    """The outcome of a postback with this code (a key of `CODES`) and status text.

    A text that is in no table means `sent`, or with an error code `failed`.
    """
    row = CODES[code]
    if not row.refined or not status:
        return row.outcome
    known = _status_word(status)
    if known:
        return known[1]
    return Outcome.FAILED if code.startswith("E") else Outcome.SENT


def unknown_status(code: str, status: str | None) -> bool:
    """Whether this status text should decide the outcome, but is in no table."""
    return bool(status) and CODES[code].refined and _status_word(status or "") is None


def phase_of(track: Track, outcome: Outcome) -> int:
    """The phase of a track with this outcome; see `_PHASES`."""
    if track is Track.TEMPLATE and outcome is Outcome.FAILED:
        return _TEMPLATE_FAILED_PHASE
    return _PHASES[outcome]


@lru_cache(maxsize=256)  # the provider has a few dozen spellings
def _status_word(text: str) -> tuple[str, Outcome] | None:
    last = text.rsplit("/", 1)[-1].lower()
    return _STATUS_WORDS.get("".join(last.split()).removeprefix("message"))
