"""`mms-admin dead show`: one dead letter with its body, which cannot control the terminal."""

import base64
import codecs
import contextlib

import click

from shared.postback.dead_letter import DeadLetter
from shared.settings.load import load_settings
from workers.admin import console
from workers.admin.dead.browse import browse


@click.command("show")
@click.argument("dead_letter_id", metavar="ID")
@console.json_option
@console.raw_option
def show_dead_letter(dead_letter_id: str, *, as_json: bool, raw: bool) -> None:
    """Show a dead letter: its reason, its error and its postbacks.

    Control characters are printed as escapes, and seven digits or more in a row are masked. --raw
    shows the digits; with --json it also adds the exact bytes as base64. Exit status 1: there is no
    such dead letter.

    \b
    Examples:
      mms-admin dead show 3f9a0c1b2d4e
      mms-admin dead show 3f9a0c1b2d4e --raw --json | jq -r '.postbacks[0].body_base64' | base64 -d
    """  # noqa: D301 (click reads the backslash)
    dead_letter = console.run(_find(dead_letter_id))
    if dead_letter is None:
        console.say(f"There is no dead letter {dead_letter_id}.")
        raise SystemExit(1)
    if as_json:
        console.print_json(_as_json(dead_letter, raw=raw))
    else:
        _print(dead_letter, raw=raw)


async def _find(dead_letter_id: str) -> DeadLetter | None:
    async with (
        browse(load_settings()) as browser,
        contextlib.aclosing(browser.dead_letters()) as dead_letters,
    ):
        async for held in dead_letters:
            if held.dead_letter.id == dead_letter_id:
                return held.dead_letter
    return None


def _print(dead_letter: DeadLetter, *, raw: bool) -> None:
    rows = [
        ("id", dead_letter.id),
        ("reason", dead_letter.reason),
        ("error", _private(dead_letter.error, raw=raw)),
        ("source", ",".join(dead_letter.sources)),
        ("received", _moment(dead_letter.received_at)),
        ("batch", dead_letter.batch_id),
        ("content-type", dead_letter.content_type),
        ("bytes", str(len(dead_letter.body))),
        ("postbacks", str(len(dead_letter.arrivals))),
    ]
    console.print_table("dead letter", ["", ""], rows)
    if not dead_letter.arrivals:
        click.echo(f"\n{_text(dead_letter.body, raw=raw)}")
    for number, arrival in enumerate(dead_letter.arrivals, start=1):
        if dead_letter.is_batch:
            received = f"{arrival.source}, {console.moment(arrival.received_at)}"
            click.echo(f"\n{number} of {len(dead_letter.arrivals)} ({received}):")
        else:
            click.echo("")
        click.echo(_text(arrival.body, raw=raw))


def _as_json(dead_letter: DeadLetter, *, raw: bool) -> dict[str, object]:
    return {
        "id": dead_letter.id,
        "reason": dead_letter.reason,
        "error": _private(dead_letter.error, raw=raw),
        "source": ",".join(dead_letter.sources),
        "received_at": _moment(dead_letter.received_at),
        "batch": dead_letter.batch_id,
        "content_type": dead_letter.content_type,
        "bytes": len(dead_letter.body),
        "postbacks": [
            {
                "source": arrival.source,
                "received_at": console.moment(arrival.received_at),
                "content_type": arrival.content_type,
                "body": _text(arrival.body, raw=raw),
                "body_base64": base64.b64encode(arrival.body).decode() if raw else None,
            }
            for arrival in dead_letter.arrivals
        ],
    }


def _text(body: bytes, *, raw: bool) -> str:
    """The bytes as text that is safe to print; bytes that are no text become escapes."""
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
