"""Times: the provider's ISO 8601, the digits of a rank, which sort, and RFC 3339 for readers."""

from datetime import UTC, datetime
from typing import Final

NO_TIME: Final = "0" * 20
"""The digits of a postback that carries no time. They sort before all others."""


def utc(timestamp: str) -> datetime | None:
    """A timestamp in UTC; None when it is not ISO 8601. Without an offset it is taken as UTC."""
    if timestamp[11:13] == "24":  # some versions of Python take it as midnight, others do not
        return None
    try:
        moment = datetime.fromisoformat(timestamp.upper())
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def digits(moment: datetime) -> str:
    """A UTC datetime as 20 digits: `YYYYMMDDhhmmss` and microseconds."""
    t = moment.isoformat(timespec="microseconds")
    return f"{t[:4]}{t[5:7]}{t[8:10]}{t[11:13]}{t[14:16]}{t[17:19]}{t[20:26]}"


def moment_of(time: str) -> datetime | None:
    """The UTC datetime that these 20 digits stand for; None for `NO_TIME`."""
    if time == NO_TIME:
        return None
    return datetime.fromisoformat(f"{time[:8]}T{time[8:14]}.{time[14:]}+00:00")


def rfc3339(moment: datetime) -> str:
    """A UTC datetime as RFC 3339 with a `Z`."""
    return rfc3339_of(digits(moment))


def rfc3339_of(time: str) -> str:
    """20 digits as RFC 3339 with a `Z`; a fraction of a second only where there is one."""
    t = time
    fraction = "" if t.endswith("000000") else f".{t[14:]}"
    return f"{t[:4]}-{t[4:6]}-{t[6:8]}T{t[8:10]}:{t[10:12]}:{t[12:14]}{fraction}Z"
