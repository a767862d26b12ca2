"""One message against what is known of it: a pure function, and the words for what it finds.

Lost is what was answered 200 and is not in the state, or decided and not told of. Wrong is a fate
that does not follow from what is in the state. Unexpected is what nobody sent or decided.

A postback that was sent but never answered 200 may be in the state or not: nobody promised
anything. If it is there, it counts like the others towards its message's fate.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from ingest.simulate.eventlog import Told
from ingest.simulate.ledger import Ledger
from ingest.simulate.lifecycles import Message
from shared.postback.normalise import Postback
from shared.postback.record import Record
from shared.process.cli import counted


class Fault(StrEnum):
    """How something is not as it should be."""

    LOST = "lost"
    WRONG = "wrong"
    UNEXPECTED = "unexpected"


class Finding(NamedTuple):
    """Something that is not as it should be, and with which message."""

    fault: Fault
    id: str
    what: str

    def __str__(self) -> str:
        return f"{self.id}: {self.what}"


def judge(
    message: Message,
    ledger: Ledger,
    record: Record | None,
    told: Mapping[tuple[str, str], Told],
) -> Iterator[Finding]:
    """Whatever is not as it should be with this message; nothing when all is well.

    Args:
        record: what the state holds for it, None when nothing.
        told: the run's events, by subject and track.
    """
    present: set[int] = set()
    for fault, what in _entries(message, ledger, record, present):
        yield Finding(fault, message.id, what)
    fates = message.fates(present)
    for track, step in fates.items():
        known = _outcome(record, track)
        if known != step.outcome:
            what = f"{track} is {known}, not {step.outcome} ({message.lifecycle})"
            yield Finding(Fault.WRONG, message.id, what)
    if record is not None and record.dropped:
        what = f"the record dropped {counted(record.dropped, 'postback')}"
        yield Finding(Fault.WRONG, message.id, what)
    for track in ("message", "discovery", "template"):
        possible = [
            step.outcome
            for at, step in enumerate(message.steps)
            if step.track == track and step.terminal and ledger.was_sent(message.first + at)
        ]
        fate = fates.get(track)
        decided = fate.outcome if fate is not None and fate.terminal else None
        for fault, what in _events(track, possible, decided, told.get((message.id, track))):
            yield Finding(fault, message.id, what)


def _entries(
    message: Message, ledger: Ledger, record: Record | None, present: set[int]
) -> Iterator[tuple[Fault, str]]:
    """Compare the postbacks field by field; fills `present` with the steps that are there."""
    wanted = [_content(fields) for fields in message.postbacks]
    for entry in record.entries if record else ():
        held = {name: v for name, v in msgspec.structs.asdict(entry.postback).items() if v}
        at = next((at for at, content in enumerate(wanted) if content == held), None)
        if at is None:
            yield Fault.UNEXPECTED, f"a {entry.postback.code} that was never sent like this"
        elif not ledger.was_sent(message.first + at):
            yield Fault.UNEXPECTED, f"a {entry.postback.code} before it was sent"
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
    track: str, possible: list[str], decided: str | None, told: Told | None
) -> Iterator[tuple[Fault, str]]:
    """Compare a track's events with the terminal outcomes sent, and with the one that stands."""
    if decided is not None and (told is None or decided not in told.outcomes):
        yield Fault.LOST, f"no event though {track} is {decided}"
    elif decided is not None and told is not None and told.last != decided:
        yield Fault.WRONG, f"the last event says {track} is {told.last}, not {decided}"
    if told is None:
        return
    for outcome in sorted(told.outcomes.difference(possible)):
        yield Fault.UNEXPECTED, f"an event says {track} is {outcome}; nobody sent that"
    if len(told.ids) > len(possible):
        terminal = counted(len(possible), "terminal postback")
        what = f"{counted(len(told.ids), 'event id')} for {terminal} of {track}"
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
    """Field names as the record's struct has them, worked out once each."""

    def __missing__(self, name: str) -> str:
        attribute = name.replace("-", "_")
        known = attribute if attribute in Postback.__struct_fields__ else f"{attribute}_"
        self[name] = known
        return known


_ATTRIBUTES: Final = _Attributes()
