"""`mms-admin show`: the record of a message, and what each postback changed."""

import contextlib
from collections.abc import Sequence
from datetime import datetime

import click
import msgspec

from shared.postback.postback import Key
from shared.postback.record import Known, Record
from shared.postback.timestamps import rfc3339
from shared.process.cli import counted
from shared.settings.load import load_settings
from shared.settings.settings import Settings
from workers.admin import console
from workers.admin.timeline import Step, timeline
from workers.store import Store


@click.command()
@click.argument("tracking_id", required=False)
@click.option("--ref", metavar="CLIENT-REFERENCE", help="Find it by its client reference.")
@click.option("--template", metavar="MMS-ID", help="Show a template (a saved MMS) instead.")
@click.option("--source", help="Provider account. Without it, all of MMS_SOURCES are searched.")
@console.json_option
@console.raw_option
def show(
    tracking_id: str | None,
    ref: str | None,
    template: str | None,
    source: str | None,
    *,
    as_json: bool,
    raw: bool,
) -> None:
    """Show what is known about a message, and what each postback changed.

    Exit status 1 when there is no record: no postback arrived, or the last one arrived longer ago
    than MMS_STATE_TTL. A client reference may stand for several messages; all are shown.

    \b
    Examples:
      mms-admin show MMS-4711
      mms-admin show --ref order-2024-001 --source acme
      mms-admin show --template 35674
      mms-admin show MMS-4711 --json | jq .tracks.message.outcome
    """  # noqa: D301 (click reads the backslash)
    if sum(value is not None for value in (tracking_id, ref, template)) != 1:
        raise click.UsageError("Give one of TRACKING-ID, --ref and --template.")
    records = console.run(_find(tracking_id, ref, template, source))
    if not records:
        wanted = tracking_id or (f"--ref {ref}" if ref else f"--template {template}")
        where = f"source {source}" if source else "any source of MMS_SOURCES"
        console.say(f"Nothing is known about {wanted} ({where}).")
        raise SystemExit(1)
    for record in records:
        shown = record if raw else _masked(record)
        if as_json:
            console.print_json(_as_json(shown))
        else:
            _print(shown)


async def _find(
    tracking_id: str | None, ref: str | None, template: str | None, source: str | None
) -> list[Record]:
    loaded = load_settings()
    keys: list[Key] = []
    async with contextlib.aclosing(Store(loaded)) as store:
        for each in _sources(loaded, source):
            if ref is not None:
                found = await store.tracking_ids(each, ref)
                keys += [Key("message", each, known) for known in found]
            elif template is not None:
                keys.append(Key("template", each, template))
            elif tracking_id is not None:
                keys.append(Key("message", each, tracking_id))
        records = [await store.record(key) for key in keys]
    return [record for record in records if record is not None]


def _sources(loaded: Settings, source: str | None) -> Sequence[str]:
    return [source] if source is not None else list(dict.fromkeys(["default", *loaded.sources]))


def _masked(record: Record) -> Record:
    """The same record with phone numbers masked."""
    entries = []
    for entry in record.entries:
        postback = entry.postback
        private = msgspec.structs.replace(
            postback,
            from_=postback.from_ and console.hide_number(postback.from_),
            to=postback.to and console.hide_number(postback.to),
            from_mask=postback.from_mask and console.hide_number(postback.from_mask),
            client_reference=postback.client_reference and console.hide(postback.client_reference),
            campaign_ref=postback.campaign_ref and console.hide(postback.campaign_ref),
            status=postback.status and console.hide(postback.status),
            status_details=postback.status_details and console.hide(postback.status_details),
            extra=postback.extra
            and {console.hide(name): console.hide(text) for name, text in postback.extra.items()},
        )
        entries.append(msgspec.structs.replace(entry, postback=private))
    return msgspec.structs.replace(record, entries=tuple(entries))


def _as_json(record: Record) -> dict[str, object]:
    return {
        "kind": record.key.kind,
        "source": record.key.source,
        "id": record.key.id,
        "dropped": record.dropped,
        "tracks": {track: record.known(track) for track in record.tracks()},
        "timeline": [_step_as_json(step) for step in timeline(record)],
    }


def _step_as_json(step: Step) -> dict[str, object]:
    entry, postback = step.entry, step.entry.postback
    return {
        "received_at": console.moment(entry.received_at),
        "time": _time(entry.rank.moment),
        "track": entry.track,
        "outcome": postback.outcome,
        "before": step.before,
        "decided": step.decided,
        "change": step.change,
        **{
            name.rstrip("_"): getattr(postback, name)
            for name in postback.__struct_fields__
            if name != "timestamp"
        },
    }


def _print(record: Record) -> None:
    key = record.key
    kind = "message" if key.kind == "message" else "template"
    more = ", more not kept" if record.dropped else ""
    tracks = [(track, record.known(track)) for track in record.tracks()]
    names = [name for name in Known.__struct_fields__ if any(_cell(k, name) for _, k in tracks)]
    console.print_table(
        f"{kind} {key.id} (source {key.source}, {counted(len(record.entries), 'postback')}{more})",
        ["", *(str(track) for track, _ in tracks)],
        [
            [name.rstrip("_").replace("_", "-"), *(_cell(known, name) for _, known in tracks)]
            for name in names
        ],
    )
    console.print_table(
        "timeline",
        ["received", "provider time", "code", "status", "outcome", "track", "sent-as", "change"],
        [_row(step) for step in timeline(record)],
    )


def _cell(known: Known, name: str) -> str | None:
    value = getattr(known, name)
    return None if value is None else str(value)


def _row(step: Step) -> list[str | None]:
    entry, postback = step.entry, step.entry.postback
    return [
        console.moment(entry.received_at),
        _time(entry.rank.moment),
        postback.code,
        postback.status,
        postback.outcome,
        entry.track,
        postback.sent_as,
        step.change,
    ]


def _time(when: datetime | None) -> str | None:
    return rfc3339(when) if when else None
