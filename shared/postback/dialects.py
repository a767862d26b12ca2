"""Bytes to fields: the provider's JSON, XML, legacy XML and form, told apart by the body alone.

The Content-Type is not looked at, because the provider's cannot be trusted. All dialects come out
as the same mapping of canonical field names to texts; what the texts mean is `postback`'s
business. XML is read with expat: it knows nothing of files or networks and keeps nothing between
documents, and we refuse document type declarations (so no entity is ever declared) and nesting.

Anybody may send a body, so what it costs is bounded before the work is done: how many fields,
elements, pairs of a form and digits of a number there may be, and which encodings. A parser must
not be in a reference cycle: it would keep its memory until Python next looks for cycles.
"""

import codecs
import contextlib
import json
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote_to_bytes
from xml.parsers import expat

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
"""Digits of a number. Python's time for reading one grows with the square of them."""


class NotText(msgspec.Struct, frozen=True):
    """Stands for a value that is neither text nor number, and says what it is instead.

    Attributes:
        value: what can be encoded as JSON; only where `parse` was asked to keep it.
    """

    what: str
    value: object = None


Fields = dict[str, str | NotText]
"""Canonical field name to value, space around it stripped. Empty and null values are left out."""


def parse(body: bytes, *, keep_nested: bool = False) -> Fields:
    """Read one postback's fields from the raw body of its request.

    Args:
        keep_nested: whether a `NotText` is to hold its value.

    Raises:
        UndecodableError: `malformed` when the body is neither JSON nor XML (bare or in a form),
            `invalid` when it is, but holds no set of fields, `too-long` when it has more than a
            body may have.
    """
    text = body.removeprefix(codecs.BOM_UTF8).strip()
    if text.startswith((b"{", b"[", b'"')):
        return _json(text, keep_nested=keep_nested)
    if text.startswith(b"<") and not text.startswith(b"<\0"):
        return _xml(_utf8(text))
    for start, encoding in _UTF16.items():
        if body.startswith(start):
            return _xml(_utf8_of_utf16(body, encoding))
    if _FORM.match(text):
        return _xml(_utf8(_xml_field(text)))
    if _JSON_SCALAR.fullmatch(text):
        raise UndecodableError(Reason.INVALID, "JSON, but no object")
    raise UndecodableError(Reason.MALFORMED, "the body is neither JSON nor XML nor a form")


# Names match without case, hyphens and underscores: `tracking-id`, `trackingid`, `TRACKINGID`.
_CANONICAL: Final = {name.replace("-", ""): name for name in FIELDS} | {"spid": "operator-id"}
_SPELLINGS: Final = (
    {name: name for name in FIELDS}
    | {squeezed.upper(): name for squeezed, name in _CANONICAL.items()}
    | {"FROM_MASK": "from-mask", "trackingid": "tracking-id"}
)
_FORM: Final = re.compile(rb"[A-Za-z0-9_.%+-]{1,256}=")
_JSON_SCALAR: Final = re.compile(rb"null|true|false|-?\d+(\.\d+)?([eE][+-]?\d+)?")


def _canonical(name: str) -> str:
    """A field's canonical name; an unknown one's is how it would be matched, whoever spells it."""
    if known := _SPELLINGS.get(name):
        return known
    lower = name.strip().lower()
    squeezed = lower.replace("-", "").replace("_", "") or lower
    return _CANONICAL.get(squeezed, squeezed)


def _stripped(text: str) -> str:
    """A text as every dialect has it: XML reads each end of a line as a line feed."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.strip()


def _too_many(what: str) -> UndecodableError:
    return UndecodableError(Reason.TOO_LONG, f"more than {MAX_FIELDS} {what}")


# JSON


_json_decoder: Final = msgspec.json.Decoder(dict[str, object], float_hook=str)
_raw_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LONG_NUMBER: Final = re.compile(rb"[:,\[]\s*-?\d{%d}" % (MAX_DIGITS + 1))
_MANY_DIGITS: Final = b"0" * (MAX_DIGITS + 1)
_DIGITS_ALIKE: Final = bytes.maketrans(b"123456789", b"000000000")
_JSON_KINDS: Final[dict[type, str]] = {bool: "a boolean", list: "an array", dict: "an object"}


def _json(text: bytes, *, keep_nested: bool) -> Fields:
    if len(text) > MAX_DIGITS and _has_long_number(text):
        raise UndecodableError(Reason.TOO_LONG, f"a number with more than {MAX_DIGITS} digits")
    try:
        raw = _json_decoder.decode(text)
        if len(raw) > MAX_FIELDS:
            raise _too_many("fields")
        fields = _json_fields(raw)
        if len(fields) < len(raw):
            fields = _json_fields(_last_of_each(text, raw))
    except msgspec.ValidationError as error:
        raise UndecodableError(Reason.INVALID, f"JSON, but no postback: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UndecodableError(Reason.MALFORMED, f"broken JSON: {error}") from error
    except RecursionError as error:
        raise UndecodableError(Reason.MALFORMED, "JSON nested too deeply") from error
    if "" in fields.values():
        fields = {name: value for name, value in fields.items() if value != ""}
    if keep_nested:
        _keep_nested(text, fields)
    return fields


def _has_long_number(text: bytes) -> bool:
    """Quick to say no. Of texts, only one with a comma, colon or bracket before so many digits."""
    return _MANY_DIGITS in text.translate(_DIGITS_ALIKE) and bool(_LONG_NUMBER.search(text))


def _json_fields(raw: Mapping[str, object]) -> Fields:
    """With an empty text for what is empty or null."""
    fields: Fields = {}
    for name, value in raw.items():
        canonical = _SPELLINGS.get(name) or _canonical(name)
        if isinstance(value, str):
            fields[canonical] = _stripped(value) if "\r" in value else value.strip()
        elif value is None:
            fields[canonical] = ""
        elif isinstance(value, int) and not isinstance(value, bool):
            fields[canonical] = str(value)
        else:
            fields[canonical] = NotText(_JSON_KINDS[type(value)])
    return fields


def _last_of_each(text: bytes, raw: Mapping[str, object]) -> dict[str, object]:
    """Of a field that is spelled in several ways the last one, as in XML."""
    pairs = json.loads(text, object_pairs_hook=list, parse_int=str, parse_float=str)
    if len(pairs) > MAX_FIELDS:
        raise _too_many("fields")
    names = {_canonical(name): name for name, _ in pairs}
    return {name: raw[name] for name in names.values()}


def _keep_nested(text: bytes, fields: Fields) -> None:
    """Give each value that is no text to its field, as it was written.

    Raises:
        UndecodableError: one is nested so deeply that its readers may not be able to read it.
    """
    for name, value in _raw_decoder.decode(text).items():
        held = fields.get(_canonical(name))
        if isinstance(held, NotText):
            if _too_deep(bytes(value)):
                raise UndecodableError(Reason.MALFORMED, "JSON nested too deeply")
            fields[_canonical(name)] = NotText(held.what, value)


_JSON_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"')
_BRACKETS_ALIKE: Final = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


def _too_deep(value: bytes) -> bool:
    """Whether arrays and objects in this JSON, which is known to be right, exceed `MAX_DEPTH`."""
    brackets = _JSON_STRING.sub(b"", value).translate(_BRACKETS_ALIKE, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")  # the innermost level
    return bool(brackets)


# XML


_DECLARED: Final = re.compile(rb"""<\?xml\s[^>]{0,200}?\sencoding\s*=\s*["']([^"'>]{1,40})["']""")
_UTF16: Final = {
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    b"<\0": "utf-16-le",
    b"\0<": "utf-16-be",
}
# The names that a declaration may have, and ours for them. Python keeps every name of an encoding
# that it was ever asked for, so it is asked for no other.
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


def _utf8(text: bytes) -> bytes:
    """XML in the encoding that it declares, as UTF-8."""
    encoding = _declared(text)
    if encoding == "utf-8":
        return text
    if encoding == "utf-16":
        raise UndecodableError(Reason.MALFORMED, "XML that is not in UTF-16, though it says so")
    return _recoded(text, encoding)


def _utf8_of_utf16(body: bytes, encoding: str) -> bytes:
    text = _recoded(body, encoding).strip()
    _declared(text)
    return text


def _declared(text: bytes) -> str:
    match = _DECLARED.match(text)
    if match is None:
        return "utf-8"
    encoding = _ENCODINGS.get(match[1].lower())
    if encoding is None:
        raise UndecodableError(
            Reason.MALFORMED, f"XML in an encoding that we do not take: {match[1]!r}"
        )
    return encoding


def _recoded(text: bytes, encoding: str) -> bytes:
    try:
        return text.decode(encoding).encode()
    except UnicodeError as error:
        raise UndecodableError(Reason.MALFORMED, f"XML that is not in {encoding}") from error


def _xml(text: bytes) -> Fields:
    """The fields of XML in UTF-8, whatever encoding it declares."""
    reader = _XmlReader()
    # The parser refers to the reader, and the reader not to the parser: no reference cycle.
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.ordered_attributes = True  # cheaper than a dict; nobody looks at them
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text.append
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(text, True)  # noqa: FBT003 (expat's own positional flag)
    except expat.ExpatError as error:
        raise UndecodableError(Reason.MALFORMED, f"broken XML: {error}") from error
    if reader.root != "postback":
        detail = f"XML, but its root is <{reader.root[:40]}>, not <postback>"
        raise UndecodableError(Reason.INVALID, detail)
    return reader.fields


class _XmlReader:
    """Collects the text of the root's children; what has elements in it is `NotText`.

    The wrapped dialect has its fields one level down: `<POSTBACK><NOTIFICATION>`.
    """

    def __init__(self) -> None:
        self.fields: Fields = {}
        self.root = ""
        self.text: list[str] = []
        self._elements = 0
        self._depth = 0
        self._field_depth = 2  # the root is 1
        # For each open element from the field downwards, the elements that were in it so far.
        self._nested: list[dict[str, object]] = []

    def start(self, name: str, _attributes: object) -> None:
        self._depth += 1
        self._elements += 1
        if self._elements > MAX_FIELDS:
            raise _too_many("elements")
        if self._depth == 1:
            self.root = _local(name).lower()
        elif self._depth > MAX_DEPTH:
            raise UndecodableError(Reason.MALFORMED, "XML nested too deeply")
        elif self._depth == 2 and _local(name).lower() == "notification":  # noqa: PLR2004
            self._field_depth = 3
        elif self._depth > self._field_depth:
            while len(self._nested) < self._depth - self._field_depth:
                self._nested.append({})
        self.text.clear()

    def end(self, name: str) -> None:
        if self._depth == self._field_depth:
            self._field(name)
        elif self._depth > self._field_depth:
            self._inner(name)
        elif self._depth == 2:  # noqa: PLR2004 (the end of a wrapper)
            self._field_depth = 2
            self._field(name)
        self.text.clear()
        self._depth -= 1

    def _field(self, name: str) -> None:
        canonical = _SPELLINGS.get(name) or _canonical(_local(name))
        if self._nested:
            self.fields[canonical] = NotText("an element with elements in it", self._nested.pop())
        elif stripped := _stripped("".join(self.text)):
            self.fields[canonical] = stripped
        elif canonical in self.fields and self._depth == self._field_depth:
            del self.fields[canonical]  # of several the last one stands, and it is empty

    def _inner(self, name: str) -> None:
        """An element in a field: an object, or its text; several of one name are an array."""
        level = self._depth - self._field_depth
        has_elements = len(self._nested) > level
        value = self._nested.pop() if has_elements else _stripped("".join(self.text))
        siblings, local = self._nested[level - 1], _local(name)
        known = siblings.get(local)
        if known is None:
            siblings[local] = value
        elif isinstance(known, list):
            known.append(value)
        else:
            siblings[local] = [known, value]


def _local(name: str) -> str:
    """An element's name without the prefix of a namespace."""
    return name.rpartition(":")[2]


def _refuse_doctype(*_declaration: object) -> None:
    raise UndecodableError(Reason.MALFORMED, "XML with a document type declaration")


# Forms


_XML_NAME: Final = 9
"""Bytes of the longest way to write `xml`, percent-encoded."""


def _xml_field(form: bytes) -> bytes:
    pairs = form.split(b"&", MAX_FIELDS)
    for pair in pairs[:MAX_FIELDS]:
        name, _, value = pair.partition(b"=")
        if len(name) <= _XML_NAME and unquote_to_bytes(name).lower() == b"xml":
            return _unquoted(value.replace(b"+", b" ")).removeprefix(codecs.BOM_UTF8).strip()
    if len(pairs) > MAX_FIELDS:
        raise _too_many("pairs in a form")
    raise UndecodableError(Reason.MALFORMED, "a form without an XML field")


_MANY_PERCENTS: Final = 4096


def _unquoted(value: bytes) -> bytes:
    """As `unquote_to_bytes`, which takes ten times as long for a body full of `%41`."""
    escaped = value.replace(b"\\", rb"\\").replace(b"%", rb"\x")
    with contextlib.suppress(UnicodeDecodeError):
        return escaped.decode("unicode_escape").encode("latin-1")
    # A percent sign that encodes nothing stands for itself; of those there are a few at most.
    if value.count(b"%") > _MANY_PERCENTS:
        raise UndecodableError(Reason.MALFORMED, "a form that is not percent-encoded")
    return unquote_to_bytes(value)
