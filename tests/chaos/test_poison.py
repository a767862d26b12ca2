"""Bodies that are made to break a decoder, among good postbacks. Only they become dead letters."""

import asyncio
import json
from collections.abc import Callable, Iterator

import aiohttp
import pytest

from tests.support.site import Row, Site

Holds = Callable[[Row], None]

BOMB = (
    b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + b"".join(
        b'<!ENTITY %c "%s">' % (98 + depth, b"&%c;" % (97 + depth) * 10) for depth in range(9)
    )
    + b"]><postback><origin>MMS_MT</origin><code>&j;</code></postback>"
)
OUTSIDE = (
    b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    b"<postback><origin>MMS_MT</origin><code>N102</code><tracking-id>&a;</tracking-id></postback>"
)


def poison() -> Iterator[bytes]:
    """Bodies that cannot be decoded."""
    for _ in range(20):
        yield BOMB
        yield OUTSIDE
        yield b"<postback>" * 5000
        yield b"[" * 60_000
        yield b'{"a":' * 10_000
        yield b"\0" * 1000
        yield b'{"origin":"MMS_MT","code":"N102","tracking-id":"' + b"\xff\xfe" + b'"}'
        yield '<?xml version="1.0" encoding="utf-8"?><postback>é</postback>'.encode("latin-1")
        yield b'<?xml version="1.0" encoding="rot13"?><postback/>'
        yield b'<?xml version="1.0" encoding="utf-16"?><postback/>'
        yield b'{"origin":"MMS_MT","code":"N102","tracking-id":"cut off'
        yield b"<postback><origin>MMS_MT</origin><code>N102</co"
        yield b"XML=" + b"%" * 60_000
        yield json.dumps({f"field-{number}": "x" for number in range(3000)}).encode()
        yield b"9" * 60_000
        yield b'{"origin":"MMS_MT","code":' + b"9" * 60_000 + b"}"
    for number in range(10_000):
        body = {"origin": "MMS_MT", "code": f"N{number}X", "tracking-id": f"poison-{number}"}
        yield json.dumps(body).encode()


@pytest.mark.long
async def test_poison(site: Site, holds: Holds) -> None:
    await site.ingest()
    worker = await site.worker()
    url = f"http://127.0.0.1:{site.settings.ingest_port}/postbacks"
    bodies = poison()

    async def send(client: aiohttp.ClientSession) -> int:
        taken = 0
        for body in bodies:
            async with client.post(url, data=body) as answer:
                assert answer.status == 200
                taken += 1
        return taken

    async def too_large(client: aiohttp.ClientSession) -> None:
        for _ in range(50):
            async with client.post(url, data=b"x" * 1024 * 1024) as answer:
                assert answer.status == 413

    async with site.load() as load, aiohttp.ClientSession() as client:
        with load.fault():
            async with asyncio.TaskGroup() as group:
                senders = [group.create_task(send(client)) for _ in range(8)]
                group.create_task(too_large(client))
    holds(await load.verdict("poison: XML bombs, deep nesting, wrong charsets, 1 MB bodies …"))
    taken = sum(sender.result() for sender in senders)
    async with asyncio.timeout(60):
        while await site.dead() < taken:
            await asyncio.sleep(0.2)
    assert await site.dead() == taken
    assert worker.is_alive()
