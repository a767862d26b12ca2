"""The lowest and the highest value of each setting that is a number.

The bounds come from the use of the value: a port has 16 bits, Redis and RabbitMQ count the age of
records and streams in whole seconds, SQLite has at most 2^32 pages.
"""

import re
from typing import Final, NamedTuple


class Bounds(NamedTuple):
    """The lowest and the highest value, and both as a person writes them."""

    lowest: float
    highest: float
    written: str


_DAY: Final = 86400
_CENTURY: Final = 36500 * _DAY

BOUNDS: Final = {
    "ingest_port": Bounds(1, 65535, "1 to 65535"),
    "admin_port": Bounds(0, 65535, "0 to 65535"),
    "rate_per_source": Bounds(0.001, 1e6, "0 (no limit), or 0.001 to 1000000"),
    # RabbitMQ 4 accepts messages of up to 16 MiB, and one message is at least one body.
    "max_body": Bounds(1, 8 * 2**20, "1 to 8MiB"),
    "max_waiting": Bounds(1, 10**7, "1 to 10000000"),
    # A response is due within 5 s, and making a batch durable may take more than 2 s of them.
    "linger": Bounds(0, 1, "0 to 1s"),
    "max_connections": Bounds(1, 10**6, "1 to 1000000"),
    # The tables of the spool file and its reserve need some pages.
    "spool_max_bytes": Bounds(64 * 2**10, 8 * 2**40, "64KiB to 8TiB"),
    "state_ttl": Bounds(1, _CENTURY, "1s to 36500d"),
    "record_format": Bounds(1, 2, "1 or 2"),
    "prefetch": Bounds(1, 65535, "1 to 65535"),
    "queue_max_bytes": Bounds(1, 2**50, "1 to 1024TiB"),
    "delivery_limit": Bounds(1, 10**6, "1 to 1000000"),
    "archive_max_age": Bounds(1, _CENTURY, "1s to 36500d"),
    # A stream's segment is a quarter of its limit.
    "archive_max_bytes": Bounds(4 * 2**10, 2**50, "4KiB to 1024TiB"),
    "replicas": Bounds(0, 1000, "0 to 1000"),
}
"""By the name of the setting."""

NO_LIMIT: Final = frozenset({"rate_per_source"})
"""Settings for which 0 means no limit."""

_HOST: Final = re.compile(r"[0-9A-Za-z_.:%-]+")


def within(name: str, amount: float) -> bool:
    """Whether this setting may have this value."""
    lowest, highest, _ = BOUNDS[name]
    return lowest <= amount <= highest or (amount == 0 and name in NO_LIMIT)


def is_host(text: str) -> bool:
    """Whether this can be an address or a name. An empty text would mean every address."""
    try:
        text.encode("idna")
    except UnicodeError:  # a label of the name is empty or too long
        return False
    # One colon separates a name from a port; an IPv6 address has more colons.
    return _HOST.fullmatch(text) is not None and text.count(":") != 1
