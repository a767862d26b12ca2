"""The fields of a postback: their canonical names, their values, and the limits of a body."""

from typing import Final

import msgspec

from shared.errors import UndecodableError
from shared.postback.dead_letter import Reason

FIELDS: Final = (
    "origin",
    "code",
    "status",
    "status-details",
    "sent-as",
    "mms-id",
    "from",
    "to",
    "tracking-id",
    "operator-id",
    "operator-name",
    "timestamp",
    "handset",
    "client-reference",
    "campaign-ref",
    "aggregator-id",
    "audio-name",
    "video-name",
    "image-name",
    "from-mask",
    "os",
)
"""The fields that the provider documents, under their canonical names."""

MAX_DEPTH: Final = 16
"""Levels of elements in a body; levels of arrays and objects in a field of it."""

MAX_FIELDS: Final = 256
"""Fields of a JSON body, elements of an XML body, pairs of a form."""

MAX_DIGITS: Final = 1024
"""Digits of a number. The time that Python needs to read one grows with the square of them."""


class NotText(msgspec.Struct, frozen=True):
    """Stands for a value that is neither text nor number.

    Attributes:
        what: the kind of the value, for people.
        value: the value, which can be encoded as JSON; only where `parse` was asked to keep it.
    """

    what: str
    value: object = None


Fields = dict[str, str | NotText]
"""Canonical field name to value, without space around it. Empty and null values are left out."""

# Names match without case, hyphens and underscores: `tracking-id`, `trackingid`, `TRACKINGID`.
_CANONICAL: Final = {name.replace("-", ""): name for name in FIELDS} | {"spid": "operator-id"}
_SPELLINGS: Final = (
    {name: name for name in FIELDS}
    | {squeezed.upper(): name for squeezed, name in _CANONICAL.items()}
    | {"FROM_MASK": "from-mask", "trackingid": "tracking-id"}
)
# A bound method: Python 3.11 calls a method of an imported name more slowly.
known_spelling: Final = _SPELLINGS.get
"""The canonical name for a common spelling, else None; quicker than `canonical_name`."""


def canonical_name(name: str) -> str:
    """A field's canonical name. An unknown field's is its name in lower case, without hyphens."""
    if known := _SPELLINGS.get(name):
        return known
    lower = name.strip().lower()
    squeezed = lower.replace("-", "").replace("_", "") or lower
    return _CANONICAL.get(squeezed, squeezed)


def stripped(text: str) -> str:
    """A text without the space around it, and with line feeds only: XML reads line ends so."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.strip()


def too_many(what: str) -> UndecodableError:
    """The error for a body that has more than `MAX_FIELDS` of something."""
    return UndecodableError(Reason.TOO_LONG, f"more than {MAX_FIELDS} {what}")
