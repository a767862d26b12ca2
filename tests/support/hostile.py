"""Requests that are made to break an ingress or a worker, as the bytes that are sent.

Each has a name and the decoded body that must be kept if it is answered 200. The tracking-id of a
body that is a postback begins with `hostile-`.
"""

import bz2
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

PATH: Final = b"/postbacks"


class Hostile(NamedTuple):
    """One request.

    Attributes:
        name: its kind, a colon, and the hostile property.
        wire: the bytes to send.
        body: what must be kept if the response is 200.
        tracking_id: of its record or event; empty: it becomes a dead letter.
    """

    name: str
    wire: bytes
    body: bytes
    tracking_id: str = ""


def post(
    body: bytes,
    *,
    headers: Mapping[bytes, bytes] | None = None,
    path: bytes = PATH,
    method: bytes = b"POST",
    version: bytes = b"HTTP/1.1",
    length: bytes | None = None,
) -> bytes:
    """A request that closes its connection; `length` in place of the true Content-Length."""
    lines = [b"%s %s %s" % (method, path, version), b"Host: x", b"Connection: close"]
    lines.append(b"Content-Length: %s" % (length if length is not None else b"%d" % len(body)))
    lines += [b"%s: %s" % header for header in (headers or {}).items()]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(body: bytes, size: int, *, end: bytes = b"0\r\n\r\n", extension: bytes = b"") -> bytes:
    """A request whose body is in chunks of so many bytes."""
    chunks = b"".join(
        b"%x%s\r\n%s\r\n" % (len(part), extension, part)
        for part in (body[start : start + size] for start in range(0, len(body), size))
    )
    return _head(b"Transfer-Encoding: chunked") + chunks + end


def _head(*lines: bytes) -> bytes:
    first = (b"POST /postbacks HTTP/1.1", b"Host: x", b"Connection: close")
    return b"\r\n".join((*first, *lines)) + b"\r\n\r\n"


def good(tracking_id: str, **fields: object) -> bytes:
    """A postback as the provider sends it, with fields changed."""
    postback = {"origin": "MMS_MT", "code": "N101", "tracking-id": tracking_id}
    return json.dumps(postback | {name.replace("_", "-"): fields[name] for name in fields}).encode()


def _xml(declaration: str, text: str, encoding: str) -> bytes:
    return f"<?xml version='1.0'{declaration}?><postback>{text}</postback>".encode(encoding)


def _bodies() -> Iterator[tuple[str, bytes]]:
    """Bodies in an ordinary request: encodings, nesting, sizes, invalid texts."""
    minimal = "<origin>MMS_MT</origin><code>N101</code>"
    yield "zeros", b"\0" * 1000
    yield "one byte", b"\xff"
    yield "spaces", b" " * 60_000
    yield "a byte order mark alone", b"\xef\xbb\xbf"
    yield "JSON: deep lists", b"[" * 60_000
    yield "JSON: deep objects", b'{"a":' * 10_000
    yield "JSON: cut off", b'{"origin":"MMS_MT","code":"N102","tracking-id":"cut off'
    yield "JSON: a list", b'[{"origin":"MMS_MT"}]'
    yield "JSON: null", b"null"
    yield "JSON: not UTF-8", b'{"origin":"MMS_MT","code":"N102","tracking-id":"\xff\xfe"}'
    yield "JSON: a number of 60,000 digits", b'{"origin":"MMS_MT","code":' + b"9" * 60_000 + b"}"
    yield "JSON: NaN", b'{"origin":"MMS_MT","code":"N101","tracking-id":NaN}'
    yield "JSON: an object for a text", b'{"origin":"MMS_MT","code":{"a":1},"tracking-id":"x"}'
    yield "JSON: 3,000 fields", json.dumps({f"field-{at}": "x" for at in range(3000)}).encode()
    yield "JSON: UTF-16", good("hostile").decode().encode("utf-16")
    yield "JSON: UTF-7", b"+AHsAIgBvAHIAaQBnAGkAbgAiADo-"
    yield "XML: entities of entities", _bomb()
    yield (
        "XML: a file from outside",
        (
            b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
            b"<postback><origin>MMS_MT</origin><code>N101</code><tracking-id>&a;</tracking-id></postback>"
        ),
    )
    yield "XML: deep", b"<postback>" * 6000
    yield "XML: 16,000 empty elements", b"<postback>" + b"<a/>" * 13_000 + b"</postback>"
    yield "XML: long names", b"<postback><" + b"a" * 60_000 + b"/></postback>"
    yield (
        "XML: many attributes",
        (b"<postback " + b" ".join(b'a%d="x"' % at for at in range(5000)) + b"/>"),
    )
    yield "XML: cut off", b"<postback><origin>MMS_MT</origin><code>N102</co"
    yield "XML: a wrong charset", "<postback>é</postback>".encode("latin-1")
    for name in ("rot13", "utf-16", "utf-7", "base64", "idna", "punycode", "cp037", "x" * 5000):
        text = _xml(f" encoding='{name}'", minimal, "ascii")
        yield f"XML: encoding {name[:10]}", text
    yield "XML: a processing instruction", b"<?php system('id') ?><postback/>"
    yield "XML: CDATA without an end", b"<postback><![CDATA[" + b"x" * 60_000
    yield "XML: a comment of 60,000 dashes", b"<postback><!--" + b"- " * 30_000
    yield "form: percents", b"XML=" + b"%" * 60_000
    yield "form: percents and equals", b"%=" * 30_000
    yield "form: 20,000 fields", b"&".join(b"a=" for _ in range(20_000))
    yield "form: nested", b"XML=XML%3DXML%253D" + b"%25" * 10_000 + b"3Cpostback/%3E"


def _bomb() -> bytes:
    layers = b"".join(
        b'<!ENTITY %c "%s">' % (98 + depth, b"&%c;" % (97 + depth) * 10) for depth in range(9)
    )
    start = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    return start + layers + b"]><postback><origin>MMS_MT</origin><code>&j;</code></postback>"


def _postbacks() -> Iterator[tuple[str, Callable[[str], bytes]]]:
    """Bodies that can be decoded, with hostile fields. Each is made for a tracking-id."""
    yield "an unknown code", lambda key: good(key, code="N999")
    yield "a huge exponent", lambda key: good(key).replace(b'"N101"', b"1e999999")
    yield "a code of 10,000 characters", lambda key: good(key, code="N" * 10_000)
    yield "another origin", lambda key: good(key, origin="SMS_MO", message="hello")
    yield "an origin of control characters", lambda key: good(key, origin="\r\n\0\x9b")
    yield "an origin of 10,000 characters", lambda key: good(key, origin="SMS" * 3000)
    yield "a status of 60,000 characters", lambda key: good(key, status="x" * 60_000)
    yield "a status with zeros", lambda key: good(key, status="\0" * 100)
    yield "a lone surrogate", lambda key: good(key, status="\ud800")
    yield "a timestamp in the year 99999", lambda key: good(key, timestamp="99999-01-01T00:00:00Z")
    yield "a timestamp before all", lambda key: good(key, timestamp="0001-01-01T00:00:00+14:00")
    yield "an operator of 200 emoji", lambda key: good(key, code="N102", operator_id="😀" * 200)
    yield "an operator with dots", lambda key: good(key, code="N102", operator_id="#.*." * 50)
    yield "a reference of braces", lambda key: good(key, client_reference="{}{}{}")
    yield "a key of braces", lambda key: good(key + "}{")
    yield "a key of line ends", lambda key: good(key + "\r\n")
    yield "a key of 300 characters", lambda key: good(key + "x" * 300)
    yield "an unknown status", lambda key: good(key, code="N102", status="Message Perhaps")


def _headers() -> Iterator[tuple[str, dict[bytes, bytes]]]:
    """Headers of an ordinary request with an undecodable body."""
    yield "128 é as Content-Type", {b"Content-Type": "é".encode() * 128}
    yield "bytes as Content-Type", {b"Content-Type": bytes(range(128, 256))}
    yield "a Content-Type of 7,000 characters", {b"Content-Type": b"text/" + b"x" * 7000}
    yield "tabs as Content-Type", {b"Content-Type": b"\t\t;\t;"}
    yield "a charset that there is not", {b"Content-Type": b"text/xml; charset=\xff\xfe"}
    yield "a header of 20,000 characters", {b"X-Long": b"x" * 20_000}
    yield "1,000 headers", {b"X-%d" % at: b"x" for at in range(1000)}
    yield "a header without a name", {b"": b"x"}
    yield "a name with a space", {b"X Y": b"x"}
    yield "a zero in a header", {b"X-Zero": b"a\0b"}
    yield "two lengths", {b"content-length": b"3"}
    yield "a length and chunks", {b"Transfer-Encoding": b"chunked"}
    yield "chunks within chunks", {b"Transfer-Encoding": b"chunked, chunked"}
    yield "a folded header", {b"X-Fold": b"a\r\n b"}
    yield "a forged sender", {b"X-Forwarded-For": b"127.0.0.1, " * 500}
    yield "an upgrade", {b"Upgrade": b"websocket", b"Connection": b"Upgrade"}
    yield "an expectation", {b"Expect": b"the-impossible"}
    yield "a broken login", {b"Authorization": b"Basic " + b"=" * 5000}


def _codings() -> Iterator[tuple[str, bytes, bytes, bytes]]:
    """A name, the encoded bytes, the content coding, the decoded body."""
    text = good("hostile-coding", code="N999")
    yield "gzip", gzip.compress(text), b"gzip", text
    yield "gzip of 60 MB", gzip.compress(b"\0" * 60_000_000), b"gzip", b""
    yield "gzip, cut off", gzip.compress(text)[:-6], b"gzip", b""
    yield "gzip with a wrong sum", gzip.compress(text)[:-8] + b"\0" * 8, b"gzip", b""
    yield "gzip and then something else", gzip.compress(text) + b"tail", b"gzip", b""
    yield "gzip in gzip", gzip.compress(gzip.compress(text)), b"gzip, gzip", b""
    yield "deflate of empty members", zlib.compress(b"") * 5000, b"deflate", b""
    yield "gzip of empty members", gzip.compress(b"") * 3000, b"gzip", b""
    yield "deflate that is none", b"\x78\x9c" + b"\xff" * 1000, b"deflate", b""
    yield "bzip2", bz2.compress(text), b"bzip2", b""
    yield "brotli that is none", b"\xff" * 100, b"br", b""
    yield "a coding of 5,000 characters", text, b"x" * 5000, b""


def _wires() -> Iterator[tuple[str, bytes, bytes]]:
    """Requests as raw bytes: chunks, lengths, methods, paths, and bytes that are not HTTP."""
    body = b"<broken"
    yield "one byte a chunk", chunked(body * 300, 1), body * 300
    yield "chunk extensions", chunked(body, 3, extension=b";a=" + b"x" * 500), body
    yield "a chunk size of 20 digits", _head(b"Transfer-Encoding: chunked") + b"f" * 20, b""
    yield "a negative chunk", _head(b"Transfer-Encoding: chunked") + b"-1\r\nx\r\n", b""
    yield "a chunk size that is none", _head(b"Transfer-Encoding: chunked") + b"xyz\r\nx\r\n", b""
    yield "a trailer", chunked(body, 3, end=b"0\r\nX-Trailer: y\r\n\r\n"), body
    yield "endless trailers", chunked(body, 3, end=b"0\r\n" + b"X: y\r\n" * 5000), b""
    yield "chunks that end early", chunked(body, 3, end=b""), b""
    yield "a body that ends early", post(body, length=b"100"), b""
    yield "a length that is negative", post(body, length=b"-7"), b""
    yield "a length of 400 digits", post(body, length=b"9" * 400), b""
    yield "a length in other digits", post(body, length=b"\xd9\xa7"), b""
    yield "a length with a plus", post(body, length=b"+7"), b""
    yield "a megabyte", post(b"x" * 2**20), b""
    yield "no body", post(b""), b""
    yield "a path of 30,000 characters", post(body, path=b"/" + b"a" * 30_000), b""
    yield "a path with zeros", post(body, path=b"/postbacks\0"), b""
    yield "a path of dots", post(body, path=b"/postbacks/../../etc/passwd"), b""
    yield "a path of percents", post(body, path=b"/postbacks/%ff%00%2e%2e%2f"), b""
    yield "a path of bytes", post(body, path=b"/postbacks/\xff\xfe"), b""
    yield "another host's path", post(body, path=b"http://example.com/postbacks"), body
    yield "a query of 5,000 fields", post(body, path=PATH + b"?" + b"a=b&" * 1500), body
    yield "another method", post(body, method=b"PUT"), b""
    yield "a method that there is not", post(body, method=b"X" * 500), b""
    yield "CONNECT", post(b"", method=b"CONNECT", path=b"example.com:443"), b""
    yield "HTTP/9.9", post(body, version=b"HTTP/9.9"), body
    yield "HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 100, b""
    yield "TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500, b""
    yield "bytes", bytes(range(256)) * 16, b""
    yield "line ends", b"\r\n" * 5000, b""
    yield "line feeds alone", post(body).replace(b"\r\n", b"\n"), body
    yield "a request in the body of another", post(post(body), length=b"5"), b""


def table() -> list[Hostile]:
    """All of them; names are unique."""
    found = [Hostile(f"body: {name}", post(body), body) for name, body in _bodies()]
    for at, (name, made) in enumerate(_postbacks()):
        key = f"hostile-{at}"
        found.append(Hostile(f"postback: {name}", post(made(key)), made(key), key))
    for name, headers in _headers():
        body = f"<broken by {name}".encode()
        found.append(Hostile(f"header: {name}", post(body, headers=headers), body))
    for name, sent, coding, body in _codings():
        wire = post(sent, headers={b"Content-Encoding": coding})
        found.append(Hostile(f"coding: {name}", wire, body))
    found += [Hostile(f"wire: {name}", wire, body) for name, wire, body in _wires()]
    return found
