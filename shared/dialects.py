"""Bytes to fields: the provider's JSON, XML, legacy XML and form, told apart by the body alone.

The Content-Type is not looked at, because the provider's cannot be trusted. All dialects come out
as the same mapping of canonical field names to texts; what the texts mean is `postback`'s
business. XML is read with expat: it knows nothing of files or networks and keeps nothing between
documents, and we refuse document type declarations (so no entity is ever declared) and nesting.
"""

import codecs
import re
from typing import Final
from urllib.parse import unquote_to_bytes
from xml.parsers import expat

import msgspec

from shared.errors import Reason, UndecodableError

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


class NotText(msgspec.Struct, frozen=True):
    """Stands for a value that is neither text nor number, and says what it is instead."""

    what: str


Fields = dict[str, str | NotText]
"""Canonical field name to value, space around it stripped. Empty and null values are left out."""


def parse(body: bytes) -> Fields:
    """Read one postback's fields from the raw body of its request.

    Raises:
        UndecodableError: `malformed` when the body is neither JSON nor XML (bare or in a form),
            `invalid` when it is, but holds no set of fields.
    """
    text = body.removeprefix(codecs.BOM_UTF8).strip()
    if text.startswith((b"{", b"[", b'"')):
        return _json(text)
    if text.startswith(b"<") and not text.startswith(b"<\0"):
        return _xml(text)
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b"<\0", b"\0<")):
        return _xml(body)
    if _FORM.match(text):
        return _xml(_xml_field(text))
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
_FORM: Final = re.compile(rb"[A-Za-z0-9_.%+-]+=")
_JSON_SCALAR: Final = re.compile(rb"null|true|false|-?\d+(\.\d+)?([eE][+-]?\d+)?")
_json_decoder: Final = msgspec.json.Decoder(dict[str, object], float_hook=str)


def _canonical(name: str) -> str:
    """A field's canonical name; an unknown field keeps its own, in lower case."""
    if known := _SPELLINGS.get(name):
        return known
    lower = name.strip().lower()
    return _CANONICAL.get(lower.replace("-", "").replace("_", ""), lower)


def _json(text: bytes) -> Fields:
    try:
        raw = _json_decoder.decode(text)
    except msgspec.ValidationError as error:
        raise UndecodableError(Reason.INVALID, f"JSON, but no postback: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UndecodableError(Reason.MALFORMED, f"broken JSON: {error}") from error
    except RecursionError as error:
        raise UndecodableError(Reason.MALFORMED, "JSON nested too deeply") from error
    fields: Fields = {}
    for name, value in raw.items():
        if isinstance(value, str):
            if stripped := value.strip():
                fields[_SPELLINGS.get(name) or _canonical(name)] = stripped
        elif value is None:
            continue
        elif isinstance(value, int) and not isinstance(value, bool):
            fields[_canonical(name)] = str(value)
        else:
            fields[_canonical(name)] = NotText(_JSON_KINDS[type(value)])
    return fields


_JSON_KINDS: Final[dict[type, str]] = {bool: "a boolean", list: "an array", dict: "an object"}


def _xml(text: bytes) -> Fields:
    reader = _XmlReader()
    try:
        reader.parser.Parse(text, True)  # noqa: FBT003 (expat's own positional flag)
    except expat.ExpatError as error:
        raise UndecodableError(Reason.MALFORMED, f"broken XML: {error}") from error
    except (LookupError, ValueError) as error:  # from the codec that an XML declaration names
        raise UndecodableError(Reason.MALFORMED, f"XML in an unknown encoding: {error}") from error
    if reader.root != "postback":
        detail = f"XML, but its root is <{reader.root[:40]}>, not <postback>"
        raise UndecodableError(Reason.INVALID, detail)
    return reader.fields


class _XmlReader:
    """Collects the text of the root's children; anything below them is `NotText`."""

    def __init__(self) -> None:
        self.fields: Fields = {}
        self.root = ""
        self._depth = 0
        self._nested = False
        self._text: list[str] = []
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text.append
        self.parser.StartDoctypeDeclHandler = self._refuse_doctype

    def _start(self, name: str, _attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth == 1:
            self.root = name.rpartition(":")[2].lower()
        elif self._depth > MAX_DEPTH:
            raise UndecodableError(Reason.MALFORMED, "XML nested too deeply")
        elif self._depth > 2:  # noqa: PLR2004 (the root is 1, a field is 2)
            self._nested = True
        self._text.clear()

    def _end(self, name: str) -> None:
        if self._depth == 2:  # noqa: PLR2004
            canonical = _SPELLINGS.get(name) or _canonical(name.rpartition(":")[2])
            if self._nested:
                self.fields[canonical] = NotText("an element with elements in it")
            elif stripped := "".join(self._text).strip():
                self.fields[canonical] = stripped
            self._nested = False
        self._text.clear()
        self._depth -= 1

    def _refuse_doctype(self, *_declaration: object) -> None:
        raise UndecodableError(Reason.MALFORMED, "XML with a document type declaration")


def _xml_field(form: bytes) -> bytes:
    for pair in form.split(b"&"):
        name, _, value = pair.partition(b"=")
        if unquote_to_bytes(name).lower() == b"xml":
            return unquote_to_bytes(value.replace(b"+", b" ")).removeprefix(codecs.BOM_UTF8).strip()
    raise UndecodableError(Reason.MALFORMED, "a form without an XML field")
