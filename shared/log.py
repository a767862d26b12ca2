"""Log lines on standard error, as text or as JSON; phone numbers are masked in every line.

At DEBUG an ingress writes one line for each batch, and a worker one for each window. The lines have
the ids of the batches. A batch's id is also the AMQP `message_id` of the batch, and the
`correlation_id` of every event that results from it.
"""

import json
import logging
import re
from datetime import UTC, datetime
from typing import Final

FORMATS: Final = ("text", "json")
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")

# Any seven to fifteen digits may be a phone number, also inside a word. Not masked: hexadecimal ids
# with at least one of a to f, and longer runs of digits, because no phone number has more than
# fifteen. The digits of a percent-encoded character do not belong to the number that follows it.
_HEX: Final = (
    r"(?<![\w%-])(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?=[0-9]*[a-f])[0-9a-f]{16,})"
    r"(?![\w-])"
)
_PHONE: Final = r"(?:%[0-9A-Fa-f]{2}\+?|\+|(?<!\d))\d{5,13}(?P<last>\d{2})(?!\d)"
_TOKENS: Final = re.compile(f"{_HEX}|{_PHONE}")


def mask(text: str) -> str:
    """Replace all but the last two digits of everything that looks like a phone number."""
    return _TOKENS.sub(_masked, text)


def _masked(match: re.Match[str]) -> str:
    return f"***{match['last']}" if match["last"] else match[0]


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record))


class _Json(logging.Formatter):
    """One object for each line: time, level, logger, message, the keys of `extra`, the error."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": mask(record.getMessage()),
        }
        extra = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        line |= {key: _masked_value(value) for key, value in extra.items()}
        if record.exc_info:
            line["error"] = mask(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def _masked_value(value: object) -> object:
    text = mask(str(value))
    return value if isinstance(value, int) and text == str(value) else text


_STANDARD: Final = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
_FORMATTERS: Final[dict[str, logging.Formatter]] = {
    "text": _Text("%(asctime)s %(levelname)s %(name)s: %(message)s"),
    "json": _Json(),
}


def levels(text: str) -> dict[str, str]:
    """Parse `INFO` or `INFO,workers=DEBUG`; return levels by logger, the root's name is empty.

    Raises:
        ValueError: a level does not exist.
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
        level: in the form that `levels` parses.
        form: one of `FORMATS`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_FORMATTERS[form])
    by_logger = levels(level)
    logging.basicConfig(level=by_logger.pop(""), handlers=[handler], force=True)
    # Our own lines report lost connections.
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    logging.getLogger("aio_pika").setLevel(logging.CRITICAL)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    for logger, logger_level in by_logger.items():
        logging.getLogger(logger).setLevel(logger_level)
