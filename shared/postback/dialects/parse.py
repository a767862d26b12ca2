"""Find out which dialect a body is in, and read its fields.

The body decides. The Content-Type is not looked at, because the provider's cannot be trusted. All
dialects give the same mapping of canonical field names to texts; `normalise` decides what the texts
mean.

Anybody can send a body. So its cost is bounded before the work is done: the number of fields,
elements, pairs of a form and digits of a number, and the encodings. A parser must not be in a
reference cycle, because its memory would stay in use until Python's next collection of cycles.
"""

import codecs
import re
from typing import Final

from shared.errors import UndecodableError
from shared.postback.dead_letter import Reason
from shared.postback.dialects.fields import Fields
from shared.postback.dialects.form_body import xml_field
from shared.postback.dialects.json_body import read_json
from shared.postback.dialects.xml_body import read_xml
from shared.postback.dialects.xml_encoding import UTF16_STARTS, utf8, utf8_of_utf16


def parse(body: bytes, *, keep_nested: bool = False) -> Fields:
    """Read one postback's fields from the raw body of its request.

    Args:
        keep_nested: whether each `NotText` holds its value.

    Raises:
        UndecodableError: `malformed` when the body is neither JSON nor XML (alone or in a form),
            `invalid` when it is, but is no set of fields, `too-long` when it has more fields,
            elements, pairs or digits than the limits allow.
    """
    text = body.removeprefix(codecs.BOM_UTF8).strip()
    if text.startswith((b"{", b"[", b'"')):
        return read_json(text, keep_nested=keep_nested)
    if text.startswith(b"<") and not text.startswith(b"<\0"):
        return read_xml(utf8(text))
    for start, encoding in UTF16_STARTS.items():
        if body.startswith(start):
            return read_xml(utf8_of_utf16(body, encoding))
    if _FORM.match(text):
        return read_xml(utf8(xml_field(text)))
    if _JSON_SCALAR.fullmatch(text):
        raise UndecodableError(Reason.INVALID, "JSON, but no object")
    raise UndecodableError(Reason.MALFORMED, "the body is neither JSON nor XML nor a form")


_FORM: Final = re.compile(rb"[A-Za-z0-9_.%+-]{1,256}=")
_JSON_SCALAR: Final = re.compile(rb"null|true|false|-?\d+(\.\d+)?([eE][+-]?\d+)?")
