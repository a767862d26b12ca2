"""What a spool holds, for those who look at its file while an ingress may be using it."""

import contextlib
import sqlite3
from pathlib import Path
from typing import NamedTuple


class Contents(NamedTuple):
    """What is in a spool.

    Attributes:
        postbacks: that wait for RabbitMQ.
        oldest: seconds since the Unix epoch when the oldest batch of them came; None if none waits.
        set_aside: postbacks that are larger than RabbitMQ takes (its `max_message_size`). They
            wait for a person, and for a restart of the ingress.
    """

    postbacks: int
    oldest: float | None
    set_aside: int


def contents(path: Path) -> Contents:
    """Read a spool's file; changes nothing.

    Raises:
        sqlite3.Error: it cannot be read, or is no spool.
    """
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2)
    with contextlib.closing(database):
        postbacks, oldest = database.execute(
            "SELECT coalesce(sum(postbacks), 0), min(spooled_at) FROM spool"
        ).fetchone()
        known = database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'set_aside'").fetchone()
        set_aside = 0
        if known:  # else the last release wrote it
            (set_aside,) = database.execute(
                "SELECT coalesce(sum(postbacks), 0) FROM set_aside"
            ).fetchone()
    return Contents(postbacks, oldest, set_aside)
