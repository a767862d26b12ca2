"""The encoding of an XML body: the one that its declaration or its first bytes name, to UTF-8."""

import codecs
import re
from typing import Final

from shared.errors import UndecodableError
from shared.postback.dead_letter import Reason

UTF16_STARTS: Final = {
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    b"<\0": "utf-16-le",
    b"\0<": "utf-16-be",
}
"""The first bytes of XML in UTF-16, and the encoding that they stand for."""

_DECLARATION: Final = re.compile(
    rb"""<\?xml\s[^>]{0,200}?\sencoding\s*=\s*["']([^"'>]{1,40})["']"""
)
# The names that a declaration may have, and ours for them. Python keeps every name of an encoding
# that it was ever asked for. So it is asked for no other name.
_ENCODINGS: Final = {
    b"utf-8": "utf-8",
    b"utf8": "utf-8",
    b"us-ascii": "ascii",
    b"ascii": "ascii",
    b"iso-8859-1": "iso-8859-1",
    b"iso8859-1": "iso-8859-1",
    b"latin1": "iso-8859-1",
    b"iso-8859-15": "iso-8859-15",
    b"windows-1252": "cp1252",
    b"cp1252": "cp1252",
    b"utf-16": "utf-16",
    b"utf-16le": "utf-16",
    b"utf-16be": "utf-16",
}


def utf8(text: bytes) -> bytes:
    """XML in the encoding that it declares (UTF-8 when it declares none), as UTF-8.

    Raises:
        UndecodableError: the encoding is not supported, or the body is not in it.
    """
    encoding = _declared(text)
    if encoding == "utf-8":
        return text
    if encoding == "utf-16":
        raise UndecodableError(Reason.MALFORMED, "XML that declares UTF-16, but is not in UTF-16")
    return _recoded(text, encoding)


def utf8_of_utf16(body: bytes, encoding: str) -> bytes:
    """XML in UTF-16, as UTF-8.

    Args:
        encoding: a value of `UTF16_STARTS`.

    Raises:
        UndecodableError: the encoding that it declares is not supported, or the body is not in
            UTF-16.
    """
    text = _recoded(body, encoding).strip()
    _declared(text)
    return text


def _declared(text: bytes) -> str:
    match = _DECLARATION.match(text)
    if match is None:
        return "utf-8"
    encoding = _ENCODINGS.get(match[1].lower())
    if encoding is None:
        raise UndecodableError(
            Reason.MALFORMED, f"XML in an encoding that is not supported: {match[1]!r}"
        )
    return encoding


def _recoded(text: bytes, encoding: str) -> bytes:
    try:
        return text.decode(encoding).encode()
    except UnicodeError as error:
        raise UndecodableError(Reason.MALFORMED, f"XML that is not in {encoding}") from error
