"""The short form of a text in a stored postback.

Most texts of a postback are words that the provider uses again and again, or decimal numbers. A
known word is stored as a negative number, a decimal number as that number, a UUID as two numbers of
64 bits, and any other text as it is.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
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


@lru_cache(maxsize=1024)
def shorten(text: str) -> Short:
    """The short form of a text."""
    if (number := _NUMBERS.get(text)) is not None:
        return number
    if _NUMBER.fullmatch(text):
        return int(text)
    if _UUID.fullmatch(text):
        return int(text[:18].replace("-", ""), 16), int(text[19:].replace("-", ""), 16)
    return text


def restore(shorts: Iterable[Short]) -> list[str | None]:
    """The texts of short forms.

    Raises:
        LookupError: one is a word of a later format.
    """
    return [
        short
        if short is None or isinstance(short, str)
        else (str(short) if short >= 0 else WORDS[-1 - short])
        if isinstance(short, int)
        else _uuid(*short)
        for short in shorts
    ]


_NUMBERS: Final = {word: -1 - at for at, word in enumerate(WORDS)}
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,17}")  # 64 bits
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _uuid(high: int, low: int) -> str:
    text = f"{high:016x}{low:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
