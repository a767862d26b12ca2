"""`mms-admin dead export`: dead letters to a file, exactly, one JSON object a line."""

import base64
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import click

from shared.process.cli import counted
from shared.settings import settings
from workers.admin import console
from workers.admin.dead.browse import browse
from workers.admin.dead.entry import Filter, Letter
from workers.admin.dead.options import chosen, filtered


@click.command()
@click.argument("file")
@filtered
def export(
    file: str,
    letter_id: str | None,
    reason: str | None,
    source: str | None,
    since: datetime | None,
) -> None:
    """Write dead letters to FILE (- is standard output) and leave them where they are.

    One JSON object a line: id, reason, error, source, received_at, batch, content_type, headers,
    and body_base64, the exact bytes. Nothing is masked, so the file is readable by its owner
    alone. A file that is there is replaced once all is written.

    \b
    Examples:
      mms-admin dead export letters.jsonl
      mms-admin dead export --reason malformed - | jq -r .body_base64 | head -1 | base64 -d
    """  # noqa: D301 (click reads the backslash)
    try:
        with _opened(file) as out:
            count = console.run(_export(out, chosen(letter_id, reason, source, since)))
    except OSError as error:
        if file == "-":  # whoever reads it has enough
            raise
        raise click.FileError(file, error.strerror) from error
    console.say(f"{counted(count, 'dead letter')} written to {file}")


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    """A file beside it, which takes its place once it is complete: what was there stays till then.

    A file that is no regular one, such as a pipe, is written to directly.
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
    async with browse(settings.load()) as browser:
        async for held in browser.letters():
            if wanted.takes(held.letter):
                out.write(console.json_line(_as_json(held.letter)).encode() + b"\n")
                count += 1
    return count


def _as_json(letter: Letter) -> dict[str, object]:
    return {
        "id": letter.id,
        "reason": letter.reason,
        "error": letter.error,
        "source": letter.source,
        "received_at": letter.received_at,
        "batch": letter.batch_id,
        "content_type": letter.content_type,
        "headers": letter.headers,
        "body_base64": base64.b64encode(letter.body).decode(),
    }
