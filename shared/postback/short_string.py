"""A client's text as AMQP can carry it: valid UTF-8, without control characters, short enough.

Content types, ids and routing keys are short strings of at most 255 *bytes*. A longer text cannot
be encoded, and neither can lone surrogates, which HTTP headers and file names can contain.
"""

import re
from typing import Final

SHORT_STRING: Final = 255
"""Bytes of an AMQP short string."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def fit(text: str, limit: int = SHORT_STRING) -> str:
    """The same text, cut between two characters so that it has at most `limit` bytes.

    Control characters and lone surrogates become `?`.
    """
    if text.isascii() and text.isprintable() and len(text) <= limit:
        return text
    encoded = _CONTROL.sub("?", text).encode("utf-8", "replace")
    return encoded[:limit].decode("utf-8", "ignore")
