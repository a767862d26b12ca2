"""A Redis whose version is too old."""

import asyncio


def bulk(text: bytes) -> bytes:
    """A text in RESP."""
    return b"$%d\r\n%b\r\n" % (len(text), text)


class OldRedis:
    """Answers as another server: `HELLO` with its name and version, all else with OK."""

    def __init__(self, version: bytes, name: bytes = b"redis") -> None:
        self._version = version
        self._name = name
        self.asked: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while header := await reader.readline():
            words = []
            for _ in range(int(header[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2])
            self.asked.append(words[0])
            hello = (b"server", self._name, b"version", self._version)
            answers = {
                b"HELLO": b"*4\r\n" + b"".join(map(bulk, hello)),
                b"CONFIG": b"*0\r\n",
                b"INFO": bulk(b"redis_version:7.2.4\r\nrole:master\r\n"),
            }
            writer.write(answers.get(words[0], b"+OK\r\n"))
        writer.close()
