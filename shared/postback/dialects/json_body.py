"""The JSON dialect: one object, whose members are the fields."""

import json
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from shared.errors import UndecodableError
from shared.postback.dead_letter import Reason
from shared.postback.dialects.fields import (
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_FIELDS,
    Fields,
    NotText,
    canonical_name,
    known_spelling,
    stripped,
    too_many,
)

_decoder: Final = msgspec.json.Decoder(dict[str, object], float_hook=str)
_raw_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LONG_NUMBER: Final = re.compile(rb"[:,\[]\s*-?\d{%d}" % (MAX_DIGITS + 1))
_MANY_ZEROS: Final = b"0" * (MAX_DIGITS + 1)
_DIGITS_TO_ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
_KINDS: Final[dict[type, str]] = {bool: "a boolean", list: "an array", dict: "an object"}


def read_json(text: bytes, *, keep_nested: bool) -> Fields:
    """The fields of a body that begins like JSON.

    Args:
        keep_nested: whether each `NotText` holds its value, as it was written.

    Raises:
        UndecodableError: as `parse`.
    """
    if len(text) > MAX_DIGITS and _has_long_number(text):
        raise UndecodableError(Reason.TOO_LONG, f"a number with more than {MAX_DIGITS} digits")
    try:
        members = _decoder.decode(text)
        if len(members) > MAX_FIELDS:
            raise too_many("fields")
        fields = _fields(members)
        if len(fields) < len(members):
            fields = _fields(_last_of_each(text, members))
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
    """Whether a number has more than `MAX_DIGITS` digits; nearly always the first check says no.

    A text with a comma, a colon or a bracket before so many digits counts as such a number too.
    """
    return _MANY_ZEROS in text.translate(_DIGITS_TO_ZEROS) and bool(_LONG_NUMBER.search(text))


def _fields(members: Mapping[str, object]) -> Fields:
    """The members under canonical names, with an empty text for an empty or null value."""
    fields: Fields = {}
    for name, value in members.items():
        canonical = known_spelling(name) or canonical_name(name)
        if isinstance(value, str):
            fields[canonical] = stripped(value) if "\r" in value else value.strip()
        elif value is None:
            fields[canonical] = ""
        elif isinstance(value, int) and not isinstance(value, bool):
            fields[canonical] = str(value)
        else:
            fields[canonical] = NotText(_KINDS[type(value)])
    return fields


def _last_of_each(text: bytes, members: Mapping[str, object]) -> dict[str, object]:
    """The last member of each field that has several spellings, as in XML."""
    pairs = json.loads(text, object_pairs_hook=list, parse_int=str, parse_float=str)
    if len(pairs) > MAX_FIELDS:
        raise too_many("fields")
    names = {canonical_name(name): name for name, _ in pairs}
    return {name: members[name] for name in names.values()}


def _keep_nested(text: bytes, fields: Fields) -> None:
    """Add to each `NotText` its value, as it was written.

    Raises:
        UndecodableError: a value is nested so deeply that a subscriber may not be able to read it.
    """
    for name, value in _raw_decoder.decode(text).items():
        field = fields.get(canonical_name(name))
        if isinstance(field, NotText):
            if _too_deep(bytes(value)):
                raise UndecodableError(Reason.MALFORMED, "JSON nested too deeply")
            fields[canonical_name(name)] = NotText(field.what, value)


_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"')
_BRACES_TO_BRACKETS: Final = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


def _too_deep(value: bytes) -> bool:
    """Whether arrays and objects in this value, which is valid JSON, exceed `MAX_DEPTH`."""
    brackets = _STRING.sub(b"", value).translate(_BRACES_TO_BRACKETS, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")  # the innermost level
    return bool(brackets)
