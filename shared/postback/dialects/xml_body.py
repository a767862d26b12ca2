"""The XML dialects: `<postback>`, legacy `<POSTBACK>`, and legacy with the fields one level down.

XML is read with expat: it does not use files or networks and keeps nothing between documents. A
document type declaration is refused, so no entity is ever declared. Deep nesting is refused too.
"""

from typing import Final
from xml.parsers import expat

from shared.errors import UndecodableError
from shared.postback.dead_letter import Reason
from shared.postback.dialects.fields import (
    MAX_DEPTH,
    MAX_FIELDS,
    Fields,
    NotText,
    canonical_name,
    known_spelling,
    stripped,
    too_many,
)

_ROOT: Final = "postback"
_WRAPPER: Final = "notification"


def read_xml(text: bytes) -> Fields:
    """The fields of XML in UTF-8, whatever encoding it declares.

    Raises:
        UndecodableError: as `parse`.
    """
    reader = _Reader()
    # The parser refers to the reader, and the reader not to the parser: no reference cycle.
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.ordered_attributes = True  # cheaper than a dict; attributes are not used
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text.append
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(text, True)  # noqa: FBT003 (expat's own positional flag)
    except expat.ExpatError as error:
        raise UndecodableError(Reason.MALFORMED, f"broken XML: {error}") from error
    if reader.root != _ROOT:
        detail = f"XML, but its root is <{reader.root[:40]}>, not <{_ROOT}>"
        raise UndecodableError(Reason.INVALID, detail)
    return reader.fields


class _Reader:
    """Collects the text of the root's children; a child that has elements in it is `NotText`.

    In the wrapped dialect the fields are one level down: `<POSTBACK><NOTIFICATION>`.
    """

    def __init__(self) -> None:
        self.fields: Fields = {}
        self.root = ""
        self.text: list[str] = []
        self._elements = 0
        self._depth = 0
        self._field_depth = 2  # the root is 1
        # For each open element from the field downwards, the elements in it so far.
        self._nested: list[dict[str, object]] = []

    def start(self, name: str, _attributes: object) -> None:
        self._depth += 1
        self._elements += 1
        if self._elements > MAX_FIELDS:
            raise too_many("elements")
        if self._depth == 1:
            self.root = _local(name).lower()
        elif self._depth > MAX_DEPTH:
            raise UndecodableError(Reason.MALFORMED, "XML nested too deeply")
        elif self._depth == 2 and _local(name).lower() == _WRAPPER:  # noqa: PLR2004
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
        canonical = known_spelling(name) or canonical_name(_local(name))
        if self._nested:
            self.fields[canonical] = NotText("an element with elements in it", self._nested.pop())
        elif text := stripped("".join(self.text)):
            self.fields[canonical] = text
        elif canonical in self.fields and self._depth == self._field_depth:
            del self.fields[canonical]  # the last one of a repeated field counts, and it is empty

    def _inner(self, name: str) -> None:
        """An element in a field: an object, or its text. Several of one name are an array."""
        level = self._depth - self._field_depth
        has_elements = len(self._nested) > level
        value = self._nested.pop() if has_elements else stripped("".join(self.text))
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
