"""Encodes fields as the provider does: JSON, XML, legacy XML and form, with all irregularities.

All wordings of a postback decode to the same postback. The source is the provider's public pages
on MMS postbacks. The random generator decides which irregularities a body gets.
"""

import re
from datetime import datetime, timedelta, timezone
from random import Random
from typing import Final, NamedTuple
from urllib.parse import quote_plus
from xml.sax.saxutils import escape

import msgspec

DIALECTS: Final = ("json", "xml", "legacy", "form")

MIXED: Final = "mixed"
"""Any of the dialects, drawn for each request."""


class Wording(NamedTuple):
    """A request's body and its Content-Type, None when it has none."""

    content_type: str | None
    body: bytes


def word(fields: dict[str, str], dialect: str, random: Random) -> Wording:
    """Encode a postback's fields.

    Args:
        fields: under canonical names; status in its one-word form, timestamp in UTC.
        dialect: one of `DIALECTS`, or `MIXED`.
    """
    if dialect == MIXED:
        dialect = DIALECTS[int(random.random() * len(DIALECTS))]
    if timestamp := fields.get("timestamp"):
        fields = fields | {"timestamp": _timestamp(timestamp, random)}
    types = _CONTENT_TYPES[dialect]
    return Wording(types[int(random.random() * len(types))], _WRITERS[dialect](fields, random))


_CONTENT_TYPES: Final[dict[str, tuple[str | None, ...]]] = {
    "json": ("application/json", "application/json; charset=utf-8", "text/plain", None),
    "xml": ("text/xml", "application/xml", "text/xml; charset=utf-8", "text/plain", None),
    "legacy": ("text/xml", "application/xml; charset=UTF-8", "text/plain", None),
    "form": ("application/x-www-form-urlencoded", "application/x-www-form-urlencoded", None),
}

_ZONES: Final = tuple(timezone(timedelta(hours=hours)) for hours in (-8, -5, 0, 1, 5.5))


def _timestamp(utc: str, random: Random) -> str:
    """The same time as the provider may write it: with an offset, `Z`, or a short fraction."""
    if (dice := random.random()) < 0.4:  # noqa: PLR2004
        return utc.replace("000Z", "Z") if "." in utc else utc
    moment = datetime.fromisoformat(utc)
    local = moment.astimezone(_ZONES[int(dice * 1000) % len(_ZONES)])
    return local.isoformat(timespec="milliseconds" if moment.microsecond else "auto")


def _json(fields: dict[str, str], random: Random) -> bytes:
    squeezed = random.random() < 0.1  # noqa: PLR2004
    unquoted = random.random() < 0.3  # noqa: PLR2004
    worded: dict[str, str | int | None] = {}
    for name, text in fields.items():
        number = unquoted and name in _NUMBERS and _PLAIN_NUMBER.fullmatch(text)
        worded["trackingid" if squeezed and name == "tracking-id" else name] = (
            int(text) if number else text
        )
    if (status := fields.get("status")) and random.random() < 0.2:  # noqa: PLR2004
        worded["status"] = _AMERICAN.get(status, status)
    for name in _absent(fields, random):
        worded[name] = "" if random.random() < 0.5 else None  # noqa: PLR2004
    return msgspec.json.encode(worded)


_NUMBERS: Final = frozenset({"mms-id", "from", "to", "operator-id", "aggregator-id"})
_PLAIN_NUMBER: Final = re.compile(r"[1-9]\d*")
_AMERICAN: Final = {"Unrecognised": "Unrecognized", "Not Supported": "NotSupported"}


def _xml(fields: dict[str, str], random: Random) -> bytes:
    elements = [f"<{name}>{text}</{name}>" for name, text in _texts(fields, random)]
    elements += [f"<{name}/>" for name in _absent(fields, random)]
    random.shuffle(elements)
    between = "\n  " if random.random() < 0.3 else ""  # noqa: PLR2004
    prefix = "\ufeff" if random.random() < 0.05 else ""  # noqa: PLR2004
    return f"{prefix}<postback>{between}{between.join(elements)}</postback>".encode()


def _legacy(fields: dict[str, str], random: Random) -> bytes:
    elements = [
        f"<{_legacy_name(name)}>{text}</{_legacy_name(name)}>"
        for name, text in _texts(fields, random)
    ]
    elements += [
        f"<{_legacy_name(name)}></{_legacy_name(name)}>" for name in _absent(fields, random)
    ]
    random.shuffle(elements)
    declaration, encoding = _DECLARATIONS[int(random.random() * len(_DECLARATIONS))]
    schema = _SCHEMA if random.random() < 0.3 else ""  # noqa: PLR2004
    return f"{declaration}<POSTBACK{schema}>{''.join(elements)}</POSTBACK>".encode(encoding)


_DECLARATIONS: Final = (
    ("", "utf-8"),
    ('<?xml version="1.0"?>\n', "utf-8"),
    ('<?xml version="1.0" encoding="UTF-8"?>\n', "utf-8"),
    ('<?xml version="1.0" encoding="ISO-8859-1"?>', "iso-8859-1"),
)
_SCHEMA: Final = (
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
    ' xsi:noNamespaceSchemaLocation="postback.xsd"'
)
_LEGACY_NAMES: Final = {"operator-id": "SPID", "from-mask": "FROM_MASK"}


def _legacy_name(name: str) -> str:
    return _LEGACY_NAMES.get(name) or name.replace("-", "").upper()


def _form(fields: dict[str, str], random: Random) -> bytes:
    xml = _xml(fields, random) if random.random() < 0.5 else _legacy(fields, random)  # noqa: PLR2004
    name = "XML" if random.random() < 0.7 else "xml"  # noqa: PLR2004
    return f"{name}={quote_plus(xml)}".encode()


_WRITERS: Final = {"json": _json, "xml": _xml, "legacy": _legacy, "form": _form}


def _texts(fields: dict[str, str], random: Random) -> list[tuple[str, str]]:
    """The fields with the status text of XML, escaped, sometimes with spaces around a text."""
    padded = random.random() < 0.05  # noqa: PLR2004
    texts = []
    for name, text in fields.items():
        if name == "status":
            worded = _XML_STATUSES.get(text) or f"Message Sent/{text}"
            if text == "Not Supported" and padded:
                worded = "Message Sent/NotSupported"
        else:
            worded = escape(text)
        texts.append((name, f" {worded} " if padded else worded))
    return texts


_XML_STATUSES: Final = {"Sent": "Message Sent"}
_OFTEN_EMPTY: Final = (
    "handset",
    "status-details",
    "campaign-ref",
    "audio-name",
    "video-name",
    "image-name",
    "from-mask",
    "os",
)


def _absent(fields: dict[str, str], random: Random) -> list[str]:
    """Fields that are in the body although they are empty."""
    if random.random() < 0.5:  # noqa: PLR2004
        return []
    return [name for name in _OFTEN_EMPTY if name not in fields]
