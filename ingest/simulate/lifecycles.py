"""Simulated messages: each is a list of postbacks as fields, with the outcomes they lead to.

Messages are not stored. The same message is generated again whenever it is needed. So a million
messages take no memory, and sender and check need not share them.
"""

import random
import re
import secrets
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate, chain
from typing import Final, NamedTuple, overload

from ingest.simulate.mix import LIFECYCLES, Step

RUN: Final = re.compile(r"[a-z0-9]{4,32}")
"""Valid names of a run: without characters that have a meaning in a Redis pattern."""

_OPERATORS: Final = (
    ("31002", "AT&T"),
    ("31003", "Verizon Wireless"),
    ("31004", "T-Mobile USA"),
    ("30205", "Télébec"),
    ("310160", "US Cellular"),
    ("31026", "Cricket"),
)
_HANDSETS: Final = (
    "SAMSUNG-SM-G960U",
    "Apple iPhone",
    "Nokia 8.1",
    "motorola moto g(7)",
    "LGL52VL",
)
_SENDERS: Final = ("28444", "15550100", "15550177")
_CONTENT: Final = {"video-name": "mp4", "image-name": "jpg"}


class Message(NamedTuple):
    """One simulated message, or template.

    Attributes:
        ordinal: its number in the run, from 0.
        lifecycle: the name of its lifecycle in `mix`.
        kind: the kind of its record, `message` or `template`.
        id: the tracking-id, or the template's id.
        first: the number of its first step's postback in the run; the others follow.
        steps: what its postbacks mean; in each track the more decisive ones come later.
        postbacks: the fields of each step under canonical names. Statuses are in their one-word
            form and timestamps in UTC, as the record must have them in the end.
    """

    ordinal: int
    lifecycle: str
    kind: str
    id: str
    first: int
    steps: tuple[Step, ...]
    postbacks: tuple[dict[str, str], ...]

    def in_time(self) -> list[int]:
        """The positions of the steps in the order in which the provider sends them."""
        return sorted(range(len(self.steps)), key=lambda at: self.steps[at].after)

    def deciding_steps(self, arrived: Iterable[int]) -> dict[str, Step]:
        """For each track the step that decides its outcome.

        Args:
            arrived: the positions of the steps whose postbacks have arrived.
        """
        return {self.steps[at].track: self.steps[at] for at in sorted(arrived)}


class Messages(Sequence[Message]):
    """A run's messages; made by `generate`.

    Attributes:
        run: the prefix of the run's ids, which differs between runs.
        source: the provider account that the postbacks are sent for.
        seed: determines everything but the ids and the day.
        postbacks: how many distinct postbacks the run has. They are numbered from 0.
    """

    def __init__(self, count: int, seed: int, run: str, source: str, began: datetime) -> None:
        if not RUN.fullmatch(run):
            raise ValueError(f"run {run!r} is not [a-z0-9]{{4,32}}")
        self.run = run
        self.source = source
        self.seed = seed
        self._began = began.astimezone(UTC).replace(microsecond=0)
        weights = [lifecycle.weight for lifecycle in LIFECYCLES]
        drawn = random.Random(seed).choices(range(len(LIFECYCLES)), weights, k=count)  # noqa: S311
        self._lifecycles: Final = bytes(drawn)
        lengths = (len(LIFECYCLES[each].steps) for each in drawn)
        self._firsts: Final = array("Q", chain((0,), accumulate(lengths)))
        self.postbacks: Final = self._firsts[-1]
        self._random: Final = random.Random()  # noqa: S311 (seeded again for each message)
        self._index: Final = re.compile(rf"(?:.*/)?{run}-(\d{{7,}})(?:\.\w+)?")

    def __len__(self) -> int:
        return len(self._lifecycles)

    def __iter__(self) -> Iterator[Message]:
        return map(self._make, range(len(self)))

    @overload
    def __getitem__(self, at: int) -> Message: ...
    @overload
    def __getitem__(self, at: slice) -> list[Message]: ...
    def __getitem__(self, at: int | slice) -> Message | list[Message]:
        if isinstance(at, slice):
            return [self._make(index) for index in range(*at.indices(len(self)))]
        return self._make(range(len(self))[at])

    def locate(self, number: int) -> tuple[Message, int]:
        """The message of a postback's number, and the position of its step in the message."""
        index = bisect_right(self._firsts, number) - 1
        return self._make(index), number - self._firsts[index]

    def numbers(self, index: int) -> range:
        """The numbers of a message's postbacks."""
        return range(self._firsts[index], self._firsts[index + 1])

    def find(self, kind: str, found: str) -> Message | None:
        """The message with this kind and id; None when this run has none."""
        match = self._index.fullmatch(found)
        if match is None or int(match[1]) >= len(self):
            return None
        message = self._make(int(match[1]))
        return message if (message.kind, message.id) == (kind, found) else None

    def _make(self, index: int) -> Message:
        name, _, steps = LIFECYCLES[self._lifecycles[index]]
        self._random.seed(self.seed << 32 | index)
        template = steps[0].track == "template"
        name_in_run = f"{self.run}-{index:07d}"
        if extension := _CONTENT.get(steps[0].id_field):
            name_in_run = f"https://content.example/{name_in_run}.{extension}"
        make = self._template if template else self._message
        return Message(
            ordinal=index,
            lifecycle=name,
            kind="template" if template else "message",
            id=name_in_run,
            first=self._firsts[index],
            steps=steps,
            postbacks=tuple(make(index, name_in_run, steps)),
        )

    def _message(
        self, index: int, tracking_id: str, steps: Iterable[Step]
    ) -> Iterator[dict[str, str]]:
        dice = self._random.random
        operator_id, operator_name = _OPERATORS[int(dice() * len(_OPERATORS))]
        handset = _HANDSETS[int(dice() * len(_HANDSETS))]
        common = {
            "origin": "MMS_MT",
            "tracking-id": tracking_id,
            "mms-id": str(30_000 + int(dice() * 400)),
            "from": _SENDERS[int(dice() * len(_SENDERS))],
            "to": f"1555010{int(dice() * 10_000):04d}",
            "operator-id": operator_id,
            "operator-name": operator_name,
        }
        if dice() < 0.8:  # noqa: PLR2004
            common["client-reference"] = f"order/{self.run}/{index}"
        if dice() < 0.3:  # noqa: PLR2004
            common["campaign-ref"] = f"campaign {int(dice() * 20)}"
        if dice() < 0.1:  # noqa: PLR2004
            common["aggregator-id"] = str(10 + int(dice() * 5))
        pace = 0.5 + dice()
        for step in steps:
            fields = common | self._fields_of(step, index, pace)
            if step.receipt:
                fields["handset"] = handset
            yield fields

    def _template(
        self, index: int, template: str, steps: Iterable[Step]
    ) -> Iterator[dict[str, str]]:
        pace = 0.5 + self._random.random()
        for step in steps:
            yield {"origin": "MMS_MT", step.id_field: template} | self._fields_of(step, index, pace)

    def _fields_of(self, step: Step, index: int, pace: float) -> dict[str, str]:
        fields = {
            "code": step.code,
            "status": step.status,
            "status-details": step.details,
            "sent-as": step.sent_as,
        }
        if step.timed:
            # The provider's timestamps have milliseconds at most.
            moment = self._began + timedelta(milliseconds=index * 50 + int(step.after * pace * 1e3))
            fields["timestamp"] = moment.isoformat().replace("+00:00", "Z")
        return {name: text for name, text in fields.items() if text is not None}


def generate(
    count: int,
    *,
    seed: int | None = None,
    run: str | None = None,
    source: str = "default",
    began: datetime | None = None,
) -> Messages:
    """Messages with a realistic mix of lifecycles.

    Args:
        count: how many messages; each has one to four postbacks.
        seed: the same seed draws the same mix and the same details; None: a random one.
        run: the prefix of the ids, `[a-z0-9]{4,32}`; None: a random one, so that repeated runs
            do not change the same records.
        source: the provider account.
        began: when the first message was sent; None: an hour ago.
    """
    return Messages(
        count,
        secrets.randbits(32) if seed is None else abs(seed),
        run or f"run{secrets.token_hex(4)}",
        source,
        began or datetime.now(UTC) - timedelta(hours=1),
    )
