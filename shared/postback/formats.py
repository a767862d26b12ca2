"""The format of stored data: batches (in queues, archive and spool) and records.

A msgpack array is format 1, whatever its length. A new field is added at the end: an older release
ignores it, and a newer release reads data without it. So it needs no new format number. Any other
change needs one: such data begins with a byte that msgpack never uses, then the format number. The
number is read only when the data cannot be decoded, to say why.

A release reads a new format before a later release writes it. So two successive releases can run
side by side, and going back one release is safe. Where one release does both, a setting says which
format it writes: with `MMS_RECORD_FORMAT=1` it can run beside 0.2.0, which does not read format 2
of a record; see `stored`.
"""

from typing import Final

FORMAT: Final = 1
"""The highest format of a batch that this release reads, and the one that it writes. Also that of
the array in a record of format 1."""

MARK: Final = 0xC1
"""The first byte of data in a later format; msgpack never uses it."""


def number(packed: bytes) -> int:
    """The format number of a batch, or of a record's entry without its time."""
    return packed[1] if len(packed) > 1 and packed[0] == MARK else 1


def unreadable(packed: bytes, error: Exception) -> str:
    """Why this data cannot be read, and what to do."""
    found = number(packed)
    if found > FORMAT:
        return f"format {found} is newer than this release reads ({FORMAT}); upgrade, then replay"
    return str(error)
