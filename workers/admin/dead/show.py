"""`mms-admin dead show`: one dead letter with its raw bytes, printed so that they do no harm."""

import base64
import codecs
import contextlib

import click

from shared.settings import settings
from workers.admin import console
from workers.admin.dead.browse import browse
from workers.admin.dead.entry import Letter


@click.command("show")
@click.argument("letter_id", metavar="ID")
@console.json_option
@console.raw_option
def show_dead_letter(letter_id: str, *, as_json: bool, raw: bool) -> None:
    """Show a dead letter: why it is one, and what came.

    Control characters are printed as escapes and every run of seven digits or more is masked.
    --raw leaves the digits; with --json it also adds the exact bytes as base64. Exit status 1 when
    there is no such letter.

    \b
    Examples:
      mms-admin dead show 3f9a0c1b2d4e
      mms-admin dead show 3f9a0c1b2d4e --raw --json | jq -r '.postbacks[0].body_base64' | base64 -d
    """  # noqa: D301 (click reads the backslash)
    letter = console.run(_find(letter_id))
    if letter is None:
        console.say(f"There is no dead letter {letter_id}.")
        raise SystemExit(1)
    if as_json:
        console.print_json(_as_json(letter, raw=raw))
    else:
        _print(letter, raw=raw)


async def _find(letter_id: str) -> Letter | None:
    async with (
        browse(settings.load()) as browser,
        contextlib.aclosing(browser.letters()) as letters,
    ):
        async for held in letters:
            if held.letter.id == letter_id:
                return held.letter
    return None


def _print(letter: Letter, *, raw: bool) -> None:
    rows = [
        ("id", letter.id),
        ("reason", letter.reason),
        ("error", _private(letter.error, raw=raw)),
        ("source", letter.source),
        ("received", _moment(letter.received_at)),
        ("batch", letter.batch_id),
        ("content-type", letter.content_type),
        ("bytes", str(len(letter.body))),
        ("postbacks", str(len(letter.arrivals))),
    ]
    console.print_table("dead letter", ["", ""], rows)
    if not letter.arrivals:
        click.echo(f"\n{_text(letter.body, raw=raw)}")
    for number, arrival in enumerate(letter.arrivals, start=1):
        if letter.batch:
            received = f"{arrival.source}, {console.moment(arrival.received_at)}"
            click.echo(f"\n{number} of {len(letter.arrivals)} ({received}):")
        else:
            click.echo("")
        click.echo(_text(arrival.body, raw=raw))


def _as_json(letter: Letter, *, raw: bool) -> dict[str, object]:
    return {
        "id": letter.id,
        "reason": letter.reason,
        "error": _private(letter.error, raw=raw),
        "source": letter.source,
        "received_at": _moment(letter.received_at),
        "batch": letter.batch_id,
        "content_type": letter.content_type,
        "bytes": len(letter.body),
        "postbacks": [
            {
                "source": arrival.source,
                "received_at": console.moment(arrival.received_at),
                "content_type": arrival.content_type,
                "body": _text(arrival.body, raw=raw),
                "body_base64": base64.b64encode(arrival.body).decode() if raw else None,
            }
            for arrival in letter.arrivals
        ],
    }


def _text(body: bytes, *, raw: bool) -> str:
    """The bytes as text that a terminal can bear; what is no text becomes escapes."""
    encoding = "utf-8"
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif body.startswith((b"<\0", b"{\0")):
        encoding = "utf-16-le"
    elif body.startswith((b"\0<", b"\0{")):
        encoding = "utf-16-be"
    text = body.decode(encoding, errors="backslashreplace")
    return console.visible(text if raw else console.hide(text))


def _private(text: str, *, raw: bool) -> str:
    return text if raw else console.hide(text)


def _moment(received_at: int | None) -> str | None:
    return None if received_at is None else console.moment(received_at)
