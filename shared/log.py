"""Log lines on standard error, for people or as JSON, with phone numbers masked whoever wrote them.

At most one line is written for a batch, at DEBUG. It carries the batch's id, which is in its AMQP
`message_id` and in the `correlation_id` of every event that came of it.
"""

import json
import logging
import math
import re
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

FORMATS: Final = ("text", "json")
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")

# Seven to fifteen digits are a phone number until proven otherwise, in a word too. Left alone are
# identities in hexadecimal with a letter in them, and whatever has more digits than a number can.
# The digits of a percent-encoded character before a number are not the number's.
_HEX: Final = (
    r"(?<![\w%-])(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?=[0-9]*[a-f])[0-9a-f]{16,})"
    r"(?![\w-])"
)
_PHONE: Final = r"(?:%[0-9A-Fa-f]{2}\+?|\+|(?<!\d))\d{5,13}(?P<last>\d{2})(?!\d)"
_TOKENS: Final = re.compile(f"{_HEX}|{_PHONE}")


def mask(text: str) -> str:
    """Replace all but the last two digits of whatever looks like a phone number."""
    return _TOKENS.sub(_masked, text)


def _masked(match: re.Match[str]) -> str:
    return f"***{match['last']}" if match["last"] else match[0]


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record))


class _Json(logging.Formatter):
    """One object a line: time, level, logger, message; what a line's `extra` gives; an error."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": mask(record.getMessage()),
        }
        extra = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        line |= {key: _shown(value) for key, value in extra.items()}
        if record.exc_info:
            line["error"] = mask(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def _shown(value: object) -> object:
    text = mask(str(value))
    return value if isinstance(value, int) and text == str(value) else text


_STANDARD: Final = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
_FORMATTERS: Final[dict[str, logging.Formatter]] = {
    "text": _Text("%(asctime)s %(levelname)s %(name)s: %(message)s"),
    "json": _Json(),
}


def levels(text: str) -> dict[str, str]:
    """Levels by logger from `INFO` or `INFO,workers=DEBUG`; the one for all has an empty name.

    Raises:
        ValueError: it has a level that does not exist.
    """
    found = {"": "INFO"}
    for part in text.split(","):
        name, _, level = part.strip().rpartition("=")
        if level not in LEVELS:
            raise ValueError(level)
        found[name] = level
    return found


def configure(level: str, form: str = "text") -> None:
    """Log to standard error.

    Args:
        level: as `levels` takes it.
        form: one of `FORMATS`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_FORMATTERS[form])
    by_name = levels(level)
    logging.basicConfig(level=by_name.pop(""), handlers=[handler], force=True)
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we report connections ourselves
    logging.getLogger("aio_pika").setLevel(logging.CRITICAL)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    for name, one in by_name.items():
        logging.getLogger(name).setLevel(one)


class RateLimitedLog:
    """Logs a line about something frequent at most once a minute for each reason.

    The next line for the reason says how many were left out. Reasons come from a short list, never
    from what somebody sends.

    Args:
        log: where to.
        every: seconds between two lines of a reason.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        log: logging.Logger,
        every: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._every = every
        self._clock = clock
        self._next: dict[str, float] = {}
        self._left_out: Counter[str] = Counter()

    def warning(self, reason: str, message: str, *args: object) -> None:
        """Log `message % args`, unless a line for this reason was logged a short time ago."""
        now = self._clock()
        if now < self._next.get(reason, -math.inf):
            self._left_out[reason] += 1
            return
        self._next[reason] = now + self._every
        if left_out := self._left_out.pop(reason, 0):
            message, args = f"{message} (%d more like this before)", (*args, left_out)
        self._log.warning(message, *args)
