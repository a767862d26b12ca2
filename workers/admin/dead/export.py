"""`mms-admin dead export`: write dead letters to a file, byte for byte, one JSON object a line."""

import base64
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from shared.process.cli import counted
from shared.settings.load import load_settings
from workers.admin import console
from workers.admin.dead.browse import Held, browse
from workers.admin.dead.filter import Filter, filtered


@click.command()
@click.argument("file")
@filtered
def export(file: str, wanted: Filter) -> None:
    """Write dead letters to FILE (- is standard output).

    They stay in mms.dead. Each line is one JSON object: id, reason, error, source, received_at,
    batch, content_type, headers, and body_base64 (the exact bytes). Nothing is masked, so only the
    file's owner can read it. An existing file is replaced when all is written.

    \b
    Examples:
      mms-admin dead export dead.jsonl
      mms-admin dead export --reason malformed - | jq -r .body_base64 | head -1 | base64 -d
    """  # noqa: D301 (click reads the backslash)
    try:
        with _opened(file) as out:
            count = console.run(_export(out, wanted))
    except OSError as error:
        if file == "-":  # the reader of a pipe has closed it
            raise
        raise click.FileError(file, error.strerror) from error
    console.say(f"{counted(count, 'dead letter')} written to {file}")


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    """A temporary file beside `file`, which replaces it at the end; an error leaves it as it was.

    A file that is not a regular one, such as a pipe, is written to directly.
    """
    if file == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(os.path.realpath(file))
    if path.exists() and not path.is_file():
        with path.open("wb") as out:
            yield out
        return
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


async def _export(out: BinaryIO, wanted: Filter) -> int:
    count = 0
    async with browse(load_settings()) as browser:
        async for held in browser.dead_letters():
            if wanted.matches(held.dead_letter):
                out.write(console.json_line(_as_json(held)).encode() + b"\n")
                count += 1
    return count


def _as_json(held: Held) -> dict[str, object]:
    dead_letter = held.dead_letter
    return {
        "id": dead_letter.id,
        "reason": dead_letter.reason,
        "error": dead_letter.error,
        "source": ",".join(dead_letter.sources),
        "received_at": dead_letter.received_at,
        "batch": dead_letter.batch_id,
        "content_type": dead_letter.content_type,
        "headers": held.message.header.properties.headers or {},
        "body_base64": base64.b64encode(dead_letter.body).decode(),
    }
