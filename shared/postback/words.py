"""The short form of a text in a stored postback.

Most texts of a postback are words that the provider uses again and again, or decimal numbers. A
known word is stored as a negative number, a decimal number as that number, a UUID as two numbers of
64 bits, and any other text as it is.
"""

import re
from collections.abc import Iterable
from typing import Final

Short = int | str | tuple[int, int] | None
"""None: there is no text."""

# The order is a stored format: -1 is the first word. The table of a format never changes, because
# an older release cannot read a number that its table does not have. The first 32 words take one
# byte, the next 96 two. The words are the codes and status texts of `codes`, the provider's public
# texts for states and errors, those of `ingest.simulate.mix`, and public names of carriers.
WORDS: Final = (
    *("N101", "N102", "MMS", "Sent", "Delivered", "SMS", "N013", "N202", "E101", "E102"),
    *("Expired", "Failed", "Rejected", "Retrieved", "Success", "N103", "N501", "N502", "Deferred"),
    *("Unreachable", "Indeterminate", "Forwarded", "Not Supported", "Unrecognised", "E202"),
    *("E501", "E502", "N003", "Verizon Wireless", "AT&T", "T-Mobile USA", "Message Sent"),
    # 32 words until here
    *("E002", "E003", "E004", "E011", "E012", "E013", "E999", "MMS sent to carrier"),
    *("SMS with link sent to carrier", "Retrieved by handset", "Not retrieved in time"),
    *("Carrier refused", "No answer", "Corrupt", "Transcoded", "Transcoding successful"),
    *("Transcoding successful and sending triggered", "Content validation failed"),
    *("Transcoding failed", "Client error", "Address Error", "Multimedia refused"),
    *("Unable to parse request", "Invalid Address", "Carrier refuses content"),
    *("Message format corrupt", "Invalid carrier", "Missing carrier ID", "Service denied"),
    *("Service unavailable", "Server error", "Not possible", "Message rejected"),
    *("Message ID not found", "Message Failed", "Message Sent/Delivered", "Message Sent/Failed"),
    *("Message Sent/Expired", "Message Sent/Rejected", "Message Sent/Not Supported", "Unknown"),
    *("US Cellular", "Cricket", "MetroPCS", "Boost Mobile", "Sprint", "Virgin Mobile", "Cellcom"),
    *("C Spire Wireless", "GCI", "Rogers", "Bell Mobility", "TELUS", "Videotron", "SaskTel"),
    *("Freedom Mobile", "Vodafone", "Orange", "O2", "EE", "Three", "Telekom", "Movistar", "TIM"),
    *("Wind Tre", "SFR", "Bouygues Telecom", "KPN", "Proximus", "Swisscom", "Sunrise", "A1"),
    *("Telenor", "Telia", "Elisa", "DNA", "Telstra", "Optus", "Telcel", "Claro", "Vivo", "Airtel"),
    *("Android", "iOS"),
)


def shorten(texts: Iterable[str | None]) -> list[Short]:
    """The short forms of texts."""
    return [*map(_short_forms, texts)]


def restore(shorts: Iterable[Short]) -> list[str | None]:
    """The texts of short forms.

    Raises:
        LookupError: one is a word of a later format.
    """
    return [*map(_texts, shorts)]


_KNOWN: Final = 1024
"""Short forms and texts that are remembered, each."""
_LONGEST: Final = 64
"""Characters of a text that is remembered."""
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,17}")  # 64 bits
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class _ShortForms(dict[str | None, Short]):
    """Short forms by text. Looking up in a dict is the fastest way, so they are remembered."""

    def __missing__(self, text: str) -> Short:
        if len(text) > _LONGEST:
            return text
        if len(self) >= _KNOWN:
            self.clear()
            self.update(_WORDS)
        short: Short = text
        if _NUMBER.fullmatch(text):
            short = int(text)
        elif _UUID.fullmatch(text):
            short = int(text[:18].replace("-", ""), 16), int(text[19:].replace("-", ""), 16)
        self[text] = short
        return short


class _Texts(dict[Short, str | None]):
    """Texts by short form."""

    def __missing__(self, short: int | str | tuple[int, int]) -> str:
        if isinstance(short, str):
            return short
        if isinstance(short, tuple):
            return _uuid(*short)
        if short < 0:
            raise LookupError(f"word {-short} is in no table of this release")
        return str(short)


def _uuid(high: int, low: int) -> str:
    text = f"{high:016x}{low:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


_WORDS: Final[dict[str | None, Short]] = {None: None}
_WORDS.update((word, -1 - at) for at, word in enumerate(WORDS))
_short_forms: Final = _ShortForms(_WORDS).__getitem__
_texts: Final = _Texts({short: word for word, short in _WORDS.items()}).__getitem__
