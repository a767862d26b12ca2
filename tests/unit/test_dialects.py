"""From bytes to fields: every dialect, and the provider's variants of it."""

import contextlib
import itertools
import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import OtherOriginError, UndecodableError
from shared.postback.dead_letter import Reason
from shared.postback.dialects.fields import NotText
from shared.postback.dialects.parse import parse
from shared.postback.envelope import Arrival
from shared.postback.normalise import decode
from shared.postback.passthrough import decode_passthrough, passthrough_of
from tests.support import contract
from tests.support.strategies import DIALECTS, Render, as_json, as_xml, postback_fields

FIELDS = {
    "origin": "MMS_MT",
    "code": "N102",
    "sent-as": "MMS",
    "status": "Delivered",
    "status-details": "fine",
    "mms-id": "35674",
    "from": "28444",
    "to": "15550100001",
    "tracking-id": "MMS_123",
    "operator-id": "31003",
    "operator-name": "Some & Sons <Mobile>",
    "timestamp": "2026-11-24T10:00:00-05:00",
    "handset": "Nokia",
    "client-reference": "order-7",
    "campaign-ref": "1337",
    "aggregator-id": "12",
    "audio-name": "a.mp3",
    "video-name": "v.mp4",
    "image-name": "i.jpg",
    "from-mask": "28445",
    "os": "Zoë 1.0",
}
SMALL = {"origin": "MMS_MT", "code": "N101", "tracking-id": "T1"}


def xml(inside: str, root: str = "postback") -> bytes:
    return f"<{root}>{inside}</{root}>".encode()


def reason_of(body: bytes) -> Reason:
    with pytest.raises(UndecodableError) as caught:
        parse(body)
    return Reason(caught.value.reason)


def test_the_fields_under_test_are_all_that_the_contract_names() -> None:
    assert sorted(FIELDS) == sorted(contract.FIELDS)


@pytest.mark.parametrize("render", DIALECTS.values(), ids=DIALECTS)
def test_every_field_comes_out_of_every_dialect_under_its_name(render: Render) -> None:
    assert parse(render(FIELDS)) == FIELDS


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("code", contract.CODES)
def test_every_code_means_the_same_in_every_dialect_with_every_status(
    code: str, dialect: str
) -> None:
    render = DIALECTS[dialect]
    for text in contract.STATUSES:
        for status in (text, text.upper(), f"  {text.lower()} "):
            normalised = decode("acme", render(FIELDS | {"code": code, "status": status}))
            track, _ = contract.CODES[code]
            assert (normalised.track, normalised.postback.outcome) == (
                track,
                contract.expected_outcome(code, text),
            ), f"{code} that says {status!r}"


@given(postback_fields())
def test_all_dialects_give_the_same_fields(fields: dict[str, str]) -> None:
    for name, render in DIALECTS.items():
        assert parse(render(fields)) == fields, name


XML_BODIES: dict[str, Callable[[bytes], bytes]] = {
    "UTF-8 BOM": lambda body: b"\xef\xbb\xbf" + body,
    "space around it": lambda body: b"\r\n\t " + body + b"\n\n",
    "XML declaration": lambda body: b'<?xml version="1.0"?>' + body,
    "declaration after space": lambda body: b'\n<?xml version="1.0" encoding="utf-8"?>' + body,
    "ISO-8859-1 as declared": lambda body: (
        '<?xml version="1.0" encoding="ISO-8859-1"?>' + body.decode()
    ).encode("iso-8859-1"),
    "windows-1252 as declared": lambda body: (
        "<?xml version='1.0' encoding='windows-1252' standalone='yes'?>" + body.decode()
    ).encode("windows-1252"),
    "UTF-16 with BOM": lambda body: body.decode().encode("utf-16"),
    "UTF-16 little-endian, no BOM": lambda body: body.decode().encode("utf-16-le"),
    "UTF-16 big-endian, no BOM": lambda body: body.decode().encode("utf-16-be"),
    "UTF-16 with BOM, as declared": lambda body: (
        '<?xml version="1.0" encoding="UTF-16"?>' + body.decode()
    ).encode("utf-16"),
    "ISO-8859-15 as declared, in capitals": lambda body: (
        '<?xml version="1.0" encoding="ISO-8859-15"?>' + body.decode()
    ).encode("iso-8859-15"),
    "a comment before it": lambda body: b"<!-- <code>E999</code> -->" + body,
    "a form, space as +": lambda body: b"XML=" + quote_plus(body).encode(),
    "a form, space as %20": lambda body: b"xml=" + quote(body, safe="").encode(),
    "a form, BOM in the field": lambda body: b"XML=%EF%BB%BF" + quote_plus(body).encode(),
    "a form with a line end": lambda body: b"XML=" + quote_plus(body).encode() + b"\r\n",
    "a form, XML last": lambda body: b"a=1&b=&c&XML=" + quote_plus(body).encode(),
}


@pytest.mark.parametrize("wrap", XML_BODIES.values(), ids=XML_BODIES)
def test_the_encoding_of_the_xml_changes_nothing(wrap: Callable[[bytes], bytes]) -> None:
    assert parse(wrap(as_xml(FIELDS))) == FIELDS


@pytest.mark.parametrize("prefix", [b"\xef\xbb\xbf", b" \r\n\t", b"\xef\xbb\xbf\n"])
def test_json_may_have_a_byte_order_mark_and_space(prefix: bytes) -> None:
    assert parse(prefix + as_json(FIELDS) + b"\n ") == FIELDS


def test_xml_elements_come_in_any_order() -> None:
    for order in itertools.permutations(SMALL):
        assert parse(as_xml({name: SMALL[name] for name in order})) == SMALL


CODE = "<code>N101</code>"
INSIDE = f"<origin>MMS_MT</origin>{CODE}<tracking-id>T1</tracking-id>"


@pytest.mark.parametrize(
    ("inside", "added"),
    [
        ("<handset/>", {}),
        ("<handset></handset>", {}),
        ("<handset> \n\t </handset>", {}),
        ("<handset>\n  Nokia\n</handset>", {"handset": "Nokia"}),
        ("<handset><![CDATA[<No&kia>]]></handset>", {"handset": "<No&kia>"}),
        ("<handset>No<![CDATA[ki]]>a</handset>", {"handset": "Nokia"}),
        ("<handset>No<!-- never -->kia</handset>", {"handset": "Nokia"}),
        ("<!-- <handset>No</handset> --><handset>Nokia</handset>", {"handset": "Nokia"}),
        ("<handset>No<?pi here?>kia</handset>", {"handset": "Nokia"}),
        ("<handset>&lt;&amp;&#x5a;&#90;</handset>", {"handset": "<&ZZ"}),
        ('<handset a="b" xml:lang="en">Nokia</handset>', {"handset": "Nokia"}),
        ("stray text<handset>Nokia</handset>stray text", {"handset": "Nokia"}),
        ("<future>kept</future>", {"future": "kept"}),
        ("<handset>0</handset>", {"handset": "0"}),
    ],
)
def test_the_text_of_an_element(inside: str, added: dict[str, str]) -> None:
    assert parse(xml(inside + INSIDE)) == SMALL | added
    assert parse(xml(INSIDE + inside)) == SMALL | added


@pytest.mark.parametrize("root", ["postback", "POSTBACK", "Postback"])
def test_the_root_is_postback_in_any_case(root: str) -> None:
    assert parse(xml(INSIDE, root)) == SMALL


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1", "1"),
        ("0", "0"),
        ("-7", "-7"),
        ("15550100001", "15550100001"),
        ("9223372036854775807", "9223372036854775807"),
        ("9223372036854775808", "9223372036854775808"),
        ("18446744073709551616", "18446744073709551616"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("1.50", "1.50"),
        ("0.1", "0.1"),
        ("31003.0", "31003.0"),
        ('"  spaced "', "spaced"),
        (r'"\u005a\ud83d\ude00"', "Z\U0001f600"),
        (r'"a\/b\n"', "a/b"),
    ],
)
def test_json_texts_and_unquoted_numbers(value: str, text: str) -> None:
    body = f'{{"origin":"MMS_MT","code":"N101","tracking-id":"T1","operator-id":{value}}}'
    assert parse(body.encode()) == SMALL | {"operator-id": text}


@pytest.mark.parametrize("number", ["31003", "123456789012345678901234567890"])
@pytest.mark.parametrize("name", ["tracking-id", "operator-id", "mms-id"])
def test_an_unquoted_number_is_the_same_postback_as_a_quoted_one(number: str, name: str) -> None:
    fields = SMALL | {name: number}
    unquoted = as_json(fields).replace(f'"{number}"'.encode(), number.encode())
    assert decode("acme", unquoted) == decode("acme", as_xml(fields))


@pytest.mark.parametrize("nothing", ["null", '""', '"  \\t"'])
@pytest.mark.parametrize("name", [name for name in contract.FIELDS if name not in SMALL])
def test_empty_and_null_fields_are_left_out(name: str, nothing: str) -> None:
    body = f'{{"origin":"MMS_MT","code":"N101","tracking-id":"T1","{name}":{nothing}}}'
    assert parse(body.encode()) == SMALL


@pytest.mark.parametrize("name", ["trackingid", "tracking-id", "trackingId", "TRACKINGID"])
def test_every_spelling_of_the_tracking_id(name: str) -> None:
    assert parse(as_json({"origin": "MMS_MT", "code": "N101", name: "T1"})) == SMALL


def test_the_last_of_duplicate_json_keys_counts() -> None:
    body = b'{"origin":"MMS_MT","code":"E999","tracking-id":"T1","code":"N101"}'
    assert parse(body) == SMALL


@pytest.mark.parametrize("nothing", ["", " "])
@pytest.mark.parametrize("spelling", ["code", "CODE"])
def test_the_last_of_a_repeated_field_counts_in_every_dialect(nothing: str, spelling: str) -> None:
    for last, fields in (("N102", SMALL | {"code": "N102"}), (nothing, without_code(SMALL))):
        pairs = [*SMALL.items(), (spelling, last)]
        members = ",".join(f"{json.dumps(name)}:{json.dumps(text)}" for name, text in pairs)
        elements = "".join(f"<{name}>{text}</{name}>" for name, text in pairs)
        assert parse(f"{{{members}}}".encode()) == fields
        assert parse(xml(elements)) == fields


def test_the_last_of_several_spellings_counts() -> None:
    body = b'{"code":"A","tracking-id":"1","trackingid":"2","tracking-id":"3","a":[[1e999]]}'
    assert parse(body)["tracking-id"] == "3"


def without_code(fields: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in fields.items() if name != "code"}


@pytest.mark.parametrize("name", ["reason-code", "reason_code", "reasoncode", "REASONCODE"])
def test_an_unknown_field_has_one_name_in_all_dialects(name: str) -> None:
    for body in (as_json(SMALL | {name: "7"}), as_xml(SMALL | {name: "7"})):
        assert parse(body) == SMALL | {"reasoncode": "7"}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_an_end_of_a_line_is_the_same_in_all_dialects(end: str) -> None:
    fields = SMALL | {"status-details": f"two{end}lines"}
    for render in DIALECTS.values():
        assert parse(render(fields))["status-details"] == "two\nlines"


WRAPPED: dict[str, str] = {
    "as documented": f"<NOTIFICATION>{INSIDE}</NOTIFICATION>",
    "in lower case, with space": f"\n <notification>\n {INSIDE}\n</notification>\n",
    "with a field beside it": f"<NOTIFICATION>{INSIDE.replace(CODE, '')}</NOTIFICATION>{CODE}",
}


@pytest.mark.parametrize("inside", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("root", ["POSTBACK", "postback"])
def test_the_wrapped_dialect(inside: str, root: str) -> None:
    assert parse(xml(inside, root)) == SMALL


def test_in_the_wrapped_dialect_an_element_with_elements_is_marked() -> None:
    fields = parse(xml(f"<NOTIFICATION>{INSIDE}<TO><A>1</A></TO></NOTIFICATION>"))
    assert isinstance(fields.pop("to"), NotText)
    assert fields == SMALL


def test_a_field_can_have_the_name_of_the_wrapper() -> None:
    assert parse(xml(f"{INSIDE}<notification>7</notification>")) == SMALL | {"notification": "7"}


@pytest.mark.parametrize("value", ["[]", "{}", '["a"]', '{"a":1}', "[[]]", "true", "false"])
def test_a_json_value_that_is_not_text_is_marked(value: str) -> None:
    body = f'{{"origin":"MMS_MT","code":"N101","tracking-id":"T1","handset":{value}}}'
    assert isinstance(parse(body.encode())["handset"], NotText)


@pytest.mark.parametrize("inside", ["<a/>", "<a>b</a>", "text<a/>", "<a><b><c/></b></a>"])
def test_an_element_with_elements_is_marked(inside: str) -> None:
    fields = parse(xml(f"<handset>{inside}</handset><os>x</os>{INSIDE}"))
    assert isinstance(fields.pop("handset"), NotText)
    assert fields == SMALL | {"os": "x"}


def lol() -> bytes:
    entities = "".join(
        f'<!ENTITY lol{level} "{f"&lol{level - 1};" * 10}">' for level in range(1, 10)
    )
    declaration = f'<!DOCTYPE postback [<!ENTITY lol0 "lol">{entities}]>'
    return declaration.encode() + xml(INSIDE + "<handset>&lol9;</handset>")


def external(entity: str) -> bytes:
    declaration = f"<!DOCTYPE postback [<!ENTITY x {entity}>]>"
    return declaration.encode() + xml(INSIDE + "<handset>&x;</handset>")


MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "space alone": b" \r\n\t ",
    "a byte order mark alone": b"\xef\xbb\xbf",
    "a UTF-16 byte order mark alone": b"\xff\xfe",
    "NUL bytes": b"\0" * 100,
    "NUL in XML": xml(INSIDE + "<os>a\0b</os>"),
    "NUL in JSON": b'{"origin":"MMS_MT","code":"N101","tracking-id":"T\0"}',
    "a character reference to NUL": xml(INSIDE + "<os>&#0;</os>"),
    "plain words": b"hello",
    "HTML": b"<html><body>502 Bad Gateway<br></body></html>",
    "an empty form": b"a=1&b=2",
    "a form without XML": b"XM=%3Cpostback%2F%3E&origin=MMS_MT",
    "a form whose XML is empty": b"XML=",
    "a form whose XML is none": b"XML=hello",
    "a form whose XML is truncated": b"XML=" + quote_plus(as_xml(SMALL)).encode()[:-12],
    "not UTF-8 in JSON": b'{"origin":"MMS_MT","code":"N101","tracking-id":"\xff"}',
    "not UTF-8 in XML": xml(INSIDE).replace(b"T1", b"\xff\xfe"),
    "an encoding that nobody knows": b'<?xml version="1.0" encoding="klingon"?>' + xml(INSIDE),
    "an encoding that Python knows and we do not take": (
        b'<?xml version="1.0" encoding="koi8-r"?>' + xml(INSIDE)
    ),
    "not in UTF-16 though it says so": b'<?xml version="1.0" encoding="utf-16"?>' + xml(INSIDE),
    "not in ASCII though it says so": (
        b'<?xml version="1.0" encoding="us-ascii"?>' + xml(INSIDE + "<os>\xe9</os>")
    ),
    "an encoding that nobody knows in UTF-16": (
        '<?xml version="1.0" encoding="klingon"?><postback/>'.encode("utf-16")
    ),
    "a form full of percent signs": b"XML=" + b"%" * 60_000,
    "an encoding that is none": b'<?xml version="1.0" encoding="rot13"?>' + xml(INSIDE),
    "text after JSON": as_json(SMALL) + b"x",
    "two JSON objects": as_json(SMALL) * 2,
    "two XML roots": as_xml(SMALL) * 2,
    "half a surrogate pair": b'{"origin":"MMS_MT","code":"N101","tracking-id":"\\ud83d"}',
    "an unquoted JSON value": b'{"origin":MMS_MT}',
    "a doctype": b"<!DOCTYPE postback>" + xml(INSIDE),
    "a doctype elsewhere": b'<!DOCTYPE postback SYSTEM "http://127.0.0.1/x.dtd">' + xml(INSIDE),
    "billion laughs": lol(),
    "an external entity": external('SYSTEM "file:///etc/hostname"'),
    "an external entity over HTTP": external('SYSTEM "http://127.0.0.1:9/"'),
    "an internal entity": external('"Nokia"'),
    "an undeclared entity": xml(INSIDE + "<handset>&nbsp;</handset>"),
    "elements 10,000 deep": b"<postback>" + b"<a>" * 10_000 + b"</a>" * 10_000 + b"</postback>",
    "elements 100,000 deep, unclosed": b"<postback>" + b"<a>" * 100_000,
    "objects 10,000 deep": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "arrays 100,000 deep": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "objects 100,000 deep, unclosed": b'{"a":' * 100_000,
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_malformed(body: bytes) -> None:
    assert reason_of(body) is Reason.MALFORMED


@pytest.mark.parametrize("render", [as_json, as_xml], ids=["json", "xml"])
def test_a_truncated_body_is_malformed_wherever_it_is_cut(render: Render) -> None:
    body = render(SMALL).strip()
    for length in range(len(body)):
        assert reason_of(body[:length]) is Reason.MALFORMED, body[:length]


@pytest.mark.parametrize(
    "body",
    [b"[]", b'["a"]', b'"text"', as_json(SMALL).join([b"[", b"]"]), b"<postbacks/>", b"<a>b</a>"],
)
def test_json_or_xml_that_is_no_set_of_fields_is_invalid(body: bytes) -> None:
    assert reason_of(body) is Reason.INVALID


VALID = [render(FIELDS) for render in DIALECTS.values()] + [
    wrap(as_xml(FIELDS)) for wrap in XML_BODIES.values()
]


def reads_or_refuses(body: bytes) -> None:
    try:
        decode("acme", body)
    except OtherOriginError as other:
        with contextlib.suppress(UndecodableError):  # nested too deeply
            event = passthrough_of(Arrival(1, "acme", "", body), other.fields)
            decode_passthrough(event.encode())
    except UndecodableError as error:
        refused = (error.reason, str(error))
        assert all(refused)


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_arbitrary_bytes_are_read_or_refused_and_nothing_else(body: bytes) -> None:
    reads_or_refuses(body)


@given(
    st.sampled_from([b"<", b"{", b"<?xml", b"XML=", b"\xff\xfe<\0", b"\xfe\xff\0<", b'"', b"["]),
    st.binary(max_size=100),
)
def test_bytes_that_begin_like_a_dialect_are_read_or_refused(start: bytes, rest: bytes) -> None:
    reads_or_refuses(start + rest)


@given(st.data())
def test_a_mutated_body_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    body = bytearray(data.draw(st.sampled_from(VALID)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body)))
        length = data.draw(st.integers(0, 8))
        body[at : at + length] = data.draw(st.binary(max_size=8))
    reads_or_refuses(bytes(body))


_json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from(contract.FIELDS) | st.text(max_size=5), _json_values),
    st.booleans(),
)
def test_any_json_object_is_read_or_refused_and_nothing_else(
    fields: dict[str, object],
    small: bool,  # noqa: FBT001 (drawn)
) -> None:
    reads_or_refuses(json.dumps(fields | (SMALL if small else {})).encode())
