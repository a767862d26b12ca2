"""The format of what outlives a process: batches (in queues, archive and spool) and records.

A msgpack array is format 1, whatever its length: a new field goes to its end, where an older reader
passes over it and a newer one does without, so it needs no new number. A format that cannot be had
like that begins with a byte that msgpack never uses, then its number. Nothing is counted or looked
at where a thing can be read; the number only says why it could not.

A release reads a new format before a later one writes it, so two that follow each other can run
side by side, and going back one release is safe.
"""

from typing import Final

FORMAT: Final = 1
"""The highest format that this release reads, and the one it writes."""

MARK: Final = 0xC1


def number(packed: bytes) -> int:
    """The format of a batch, or of a record's entry without its time."""
    return packed[1] if len(packed) > 1 and packed[0] == MARK else 1


def unreadable(packed: bytes, error: Exception) -> str:
    """Why this cannot be read, and what to do."""
    found = number(packed)
    if found > FORMAT:
        return f"format {found} is newer than this release reads ({FORMAT}); upgrade, then replay"
    return str(error)
