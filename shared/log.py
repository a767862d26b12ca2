"""Log lines for people, on standard error, with phone numbers masked whoever wrote the line."""

import logging
import re
from typing import Final

# Seven digits or more in a row are a phone number until proven otherwise. Digits inside a longer
# word (an identity, a tracking-id with letters) are left alone.
_PHONE: Final = re.compile(r"(?<![\w-])\+?\d{5,13}(\d{2})(?![\w-])")


def mask(text: str) -> str:
    """Replace all but the last two digits of whatever looks like a phone number."""
    return _PHONE.sub(r"***\1", text)


class _Masking(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record))


def configure(level: str) -> None:
    """Log to standard error from this level on."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Masking("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we report connections ourselves
    logging.getLogger("aio_pika").setLevel(logging.CRITICAL)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
