"""Hypothesis strategies: a postback's fields, and the ways in which the provider writes them.

The renderers know the dialects from the contract alone, not from the code that reads them.
"""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final
from urllib.parse import quote_plus
from xml.sax.saxutils import escape

from hypothesis import strategies as st

from shared.postback.normalise import decode
from shared.postback.postback import NormalisedPostback
from tests.support.contract import CODES, LEGACY, STATUSES

Render = Callable[[Mapping[str, str]], bytes]

DECLARATION: Final = '<?xml version="1.0" encoding="UTF-8"?>\n'
XSI: Final = (
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
    ' xsi:noNamespaceSchemaLocation="postback.xsd"'
)


def as_json(fields: Mapping[str, str]) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode()


def as_ascii_json(fields: Mapping[str, str]) -> bytes:
    """JSON with everything escaped, indented, and the other spelling of the tracking-id."""
    renamed = {"trackingid" if name == "tracking-id" else name: v for name, v in fields.items()}
    return json.dumps(renamed, ensure_ascii=True, indent=2).encode()


def as_xml(fields: Mapping[str, str]) -> bytes:
    return _elements("postback", "", fields).encode()


def as_legacy_xml(fields: Mapping[str, str]) -> bytes:
    renamed = {LEGACY.get(name, name.upper()): value for name, value in fields.items()}
    return (DECLARATION + _elements("POSTBACK", XSI, renamed)).encode()


def as_form(fields: Mapping[str, str]) -> bytes:
    return b"XML=" + quote_plus(as_xml(fields)).encode()


def as_legacy_form(fields: Mapping[str, str]) -> bytes:
    return b"version=2&xml=" + quote_plus(as_legacy_xml(fields)).encode() + b"&x=1"


def _elements(root: str, attributes: str, fields: Mapping[str, str]) -> str:
    lines = [f"  <{name}>{escape(value)}</{name}>\n" for name, value in fields.items()]
    return f"<{root}{attributes}>\n{''.join(lines)}</{root}>\n"


DIALECTS: Final[dict[str, Render]] = {
    "json": as_json,
    "ascii-json": as_ascii_json,
    "xml": as_xml,
    "legacy-xml": as_legacy_xml,
    "form": as_form,
    "legacy-form": as_legacy_form,
}

# XML 1.0 cannot hold control characters, and reads a carriage return as a line feed.
_characters: Final = st.characters(
    exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"
)
_awkward: Final = st.sampled_from(
    ["<&>", "]]>", '"\\"', "&amp;", "a+b=c%41&d", "<code>N101</code>", "Zoë 日本 👋🏽", "0", "null"]
)


def texts(longest: int = 30) -> st.SearchStrategy[str]:
    """Texts that every dialect can hold, not empty, without space around them."""
    drawn = st.text(_characters, min_size=1, max_size=longest).map(str.strip).filter(bool)
    return _awkward | drawn


def timestamps() -> st.SearchStrategy[str]:
    """ISO 8601 as the provider writes it: with an offset, `Z`, or fractions of a second."""
    return st.builds(
        lambda moment, fraction, offset: f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}{offset}",
        st.datetimes(
            min_value=_year(2001),
            max_value=_year(2099),
        ),
        st.sampled_from(["", ".5", ".123", ".000001"]),
        st.sampled_from(["Z", "+00:00", "-05:00", "+05:30", "+14:00"]),
    )


def _year(year: int) -> datetime:
    return datetime(year, 1, 1)  # noqa: DTZ001 (Hypothesis wants it so; the text adds the offset)


_OPTIONAL: Final[dict[str, st.SearchStrategy[str]]] = {
    "sent-as": st.sampled_from(["MMS", "SMS"]),
    "status": st.sampled_from(sorted(STATUSES)) | texts(),
    "status-details": texts(80),
    "from": st.sampled_from(["28444", "+15550100002"]),
    "to": st.sampled_from(["15550100001", "+15550100001"]),
    "operator-id": st.sampled_from(["31003", "1.2.3", "*#"]) | texts(),
    "operator-name": texts(),
    "timestamp": timestamps(),
    "handset": texts(),
    "client-reference": texts(64),
    "campaign-ref": texts(),
    "aggregator-id": texts(),
    "audio-name": texts(),
    "video-name": texts(),
    "image-name": texts(),
    "from-mask": texts(),
    "os": texts(),
    "future": texts(),  # a field that nobody knows yet
}


def postback_fields() -> st.SearchStrategy[dict[str, str]]:
    """The fields of a postback that has a key, under their canonical names."""
    return st.fixed_dictionaries(
        {
            "origin": st.just("MMS_MT"),
            "code": st.sampled_from(sorted(CODES)),
            "tracking-id": texts(),
            "mms-id": texts(),
        },
        optional=_OPTIONAL,
    )


def normalised_postbacks(kind: str = "message") -> st.SearchStrategy[NormalisedPostback]:
    """Postbacks of one record, from few values: equal ones and ties of time are common."""
    codes = sorted(
        code for code, (track, _) in CODES.items() if (track == "template") == (kind == "template")
    )
    return st.fixed_dictionaries(
        {
            "origin": st.just("MMS_MT"),
            "code": st.sampled_from(codes),
            "tracking-id": st.just("T1"),
            "mms-id": st.just("M1"),
        },
        optional={
            "status": st.sampled_from(
                ["Message Sent/Delivered", "Expired", "Failed", "Deferred", "Unreachable", "Held"]
            ),
            "timestamp": st.sampled_from(
                ["2026-11-24T10:00:00Z", "2026-11-24T11:00:00+01:00", "2026-11-24T10:00:01.5Z"]
            ),
            "handset": st.sampled_from(["Nokia", "Apple"]),
        },
    ).map(lambda fields: decode("acme", as_json(fields)))
