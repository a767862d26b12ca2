"""Compares one message with its record and its events: a pure function, and its findings.

* Lost: a postback was answered 200 and is not in the state, or a terminal outcome has no event.
* Wrong: an outcome does not follow from the postbacks in the state.
* Unexpected: a postback, record or event that does not come from what was sent.

A postback that was sent but never answered 200 may be in the state or not, because the ingress
promised nothing. If it is there, it counts towards the outcome like the others.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from ingest.simulate.eventlog import TrackEvents
from ingest.simulate.ledger import Ledger
from ingest.simulate.lifecycles import Message
from shared.postback.postback import Postback
from shared.postback.record import Record
from shared.process.cli import counted


class Fault(StrEnum):
    """The kind of a difference."""

    LOST = "lost"
    WRONG = "wrong"
    UNEXPECTED = "unexpected"


class Finding(NamedTuple):
    """One difference, and the id of its message."""

    fault: Fault
    id: str
    what: str

    def __str__(self) -> str:
        return f"{self.id}: {self.what}"


def judge(
    message: Message,
    ledger: Ledger,
    record: Record | None,
    tracks: Mapping[tuple[str, str], TrackEvents],
) -> Iterator[Finding]:
    """All differences of this message; none when state and events are right.

    Args:
        record: its record in the state, None when there is none.
        tracks: the run's events, by subject and track.
    """
    present: set[int] = set()
    for fault, what in _entries(message, ledger, record, present):
        yield Finding(fault, message.id, what)
    deciding = message.deciding_steps(present)
    for track, step in deciding.items():
        known = _outcome(record, track)
        if known != step.outcome:
            what = f"{track} is {known}, not {step.outcome} ({message.lifecycle})"
            yield Finding(Fault.WRONG, message.id, what)
    if record is not None and record.dropped:
        yield Finding(Fault.WRONG, message.id, "the record dropped postbacks")
    for track in ("message", "discovery", "template"):
        possible = [
            step.outcome
            for at, step in enumerate(message.steps)
            if step.track == track and step.terminal and ledger.was_sent(message.first + at)
        ]
        last = deciding.get(track)
        decided = last.outcome if last is not None and last.terminal else None
        for fault, what in _events(track, possible, decided, tracks.get((message.id, track))):
            yield Finding(fault, message.id, what)


def _entries(
    message: Message, ledger: Ledger, record: Record | None, present: set[int]
) -> Iterator[tuple[Fault, str]]:
    """Compare the postbacks field by field; add the steps that the record has to `present`."""
    wanted = [_content(fields) for fields in message.postbacks]
    for entry in record.entries if record else ():
        held = {name: v for name, v in msgspec.structs.asdict(entry.postback).items() if v}
        at = next((at for at, content in enumerate(wanted) if content == held), None)
        if at is None:
            yield Fault.UNEXPECTED, f"a {entry.postback.code} that was not sent with these fields"
        elif not ledger.was_sent(message.first + at):
            yield Fault.UNEXPECTED, f"a {entry.postback.code} that was not sent yet"
        elif at in present:
            yield Fault.UNEXPECTED, f"the same {entry.postback.code} twice"
        elif entry.track != message.steps[at].track:
            yield Fault.WRONG, f"{entry.postback.code} counts as {entry.track}"
        else:
            present.add(at)
    for at, step in enumerate(message.steps):
        if at not in present and ledger.was_answered(message.first + at):
            yield Fault.LOST, f"{step.code} was answered 200 and is not in the state"


def _events(
    track: str, possible: list[str], decided: str | None, seen: TrackEvents | None
) -> Iterator[tuple[Fault, str]]:
    """Compare a track's events with the terminal outcomes that were sent and the decided one."""
    if decided is not None and (seen is None or decided not in seen.outcomes):
        yield Fault.LOST, f"{track} is {decided} and has no event"
    elif decided is not None and seen is not None and seen.last_outcome != decided:
        yield Fault.WRONG, f"the last event says {track} is {seen.last_outcome}, not {decided}"
    if seen is None:
        return
    for outcome in sorted(seen.outcomes.difference(possible)):
        yield Fault.UNEXPECTED, f"an event says {track} is {outcome}, which was never sent"
    if len(seen.ids) > len(possible):
        terminal = counted(len(possible), "terminal postback")
        what = f"{counted(len(seen.ids), 'event id')} for {terminal} of {track}"
        yield Fault.UNEXPECTED, what


def _content(fields: Mapping[str, str]) -> dict[str, str]:
    return {
        _ATTRIBUTES[name]: text for name, text in fields.items() if name not in _NOT_IN_AN_ENTRY
    }


def _outcome(record: Record | None, track: str) -> str | None:
    entries = [entry for entry in record.entries if entry.track == track] if record else []
    return str(entries[-1].postback.outcome) if entries else None


_NOT_IN_AN_ENTRY: Final = frozenset({"origin", "tracking-id"})


class _Attributes(dict[str, str]):
    """Field names to the attributes of `Postback`; each is computed once."""

    def __missing__(self, name: str) -> str:
        attribute = name.replace("-", "_")
        known = attribute if attribute in Postback.__struct_fields__ else f"{attribute}_"
        self[name] = known
        return known


_ATTRIBUTES: Final = _Attributes()
