"""A postback: its fields in one spelling, the key of its record, and its rank in it.

Two requests are the same postback when their normalised fields are the same, whatever their
spelling and time of arrival: that is the identity. The rank is a string that sorts the postbacks of
one track by how much they decide: phase, then the provider's time in UTC, then identity. Both are
functions of the fields alone. So the order of arrival cannot matter.
"""

from datetime import datetime
from typing import NamedTuple

import msgspec

from shared.postback.codes import CODES, TERMINAL_PHASE, Outcome, Track, outcome_of
from shared.postback.timestamps import moment_of


class Key(NamedTuple):
    """The key of a record.

    Attributes:
        kind: `message` (also for discovery) or `template`.
        source: the provider account that sent the postback.
        id: the tracking-id, or the template's mms-id.
    """

    kind: str
    source: str
    id: str

    @property
    def redis(self) -> str:
        """The Redis key; braces keep all of one record in one cluster slot."""
        return f"mms:{self.kind}:{{{self.source}/{self.id}}}"


class Postback(msgspec.Struct, frozen=True, array_like=True):
    """The normalised fields of one postback, in the order in which they are stored.

    The order is a stored format: add at the end only, with a default; see `formats`. Two fields
    are left out: the id that is in the record's key, and `origin`, which is always `MMS_MT`.
    """

    code: str
    status: str | None = None
    status_details: str | None = None
    sent_as: str | None = None
    mms_id: str | None = None
    from_: str | None = None
    to: str | None = None
    operator_id: str | None = None
    operator_name: str | None = None
    timestamp: str | None = None
    handset: str | None = None
    client_reference: str | None = None
    campaign_ref: str | None = None
    aggregator_id: str | None = None
    audio_name: str | None = None
    video_name: str | None = None
    image_name: str | None = None
    from_mask: str | None = None
    os: str | None = None
    extra: dict[str, str] | None = None

    @property
    def track(self) -> Track:
        return CODES[self.code].track

    @property
    def outcome(self) -> Outcome:
        return outcome_of(self.code, self.status)


class Rank(NamedTuple):
    """The parts of a rank. Its text has fixed width and only `[0-9a-f]`: any collation sorts it.

    Attributes:
        phase: how far in its life the track is with this postback.
        time: the provider's time in UTC as 20 digits, see `timestamps.digits`; `NO_TIME` when the
            postback carries none.
        identity: 24 hexadecimal digits.
    """

    phase: int
    time: str
    identity: str

    def __str__(self) -> str:
        return f"{self.phase}{self.time}{self.identity}"

    @classmethod
    def parse(cls, text: str) -> "Rank":
        return cls(int(text[0]), text[1:21], text[21:])

    @property
    def moment(self) -> datetime | None:
        """The provider's time, or None when the postback carries none."""
        return moment_of(self.time)

    @property
    def terminal(self) -> bool:
        return self.phase >= TERMINAL_PHASE


class NormalisedPostback(NamedTuple):
    """A postback with the key of its record and its rank there.

    Attributes:
        unknown_status: whether its status text should decide its outcome, but is in no table.
    """

    key: Key
    track: Track
    rank: Rank
    postback: Postback
    unknown_status: bool = False
