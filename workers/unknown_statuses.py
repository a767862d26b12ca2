"""Status texts that are in no table: count them by code, and log each text once.

Such a text never counts as a delivery, see `postback.codes`. It may be a new word of the provider,
so somebody must read it and add it to the table. A client can send any text. So only the first
`MAX_LOGGED` texts are logged, and of each only its beginning, without digits.
"""

import logging
import re
from typing import Final

from workers import metrics

MAX_LOGGED: Final = 100
"""Distinct texts that one process logs."""

LENGTH: Final = 80
"""Characters of a text that are logged."""

log: Final = logging.getLogger(__name__)

_DIGIT: Final = re.compile(r"\d")


class UnknownStatuses:
    """Counts all postbacks with such a text, and remembers the texts that were logged."""

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def count(self, code: str, status: str) -> None:
        """Count one postback whose status text is in no table."""
        metrics.UNKNOWN_STATUS[code,].inc()
        text = ascii(_DIGIT.sub("#", status[:LENGTH]))
        if text in self._logged or len(self._logged) >= MAX_LOGGED:
            return
        self._logged.add(text)
        log.warning(
            "%s has a status text that is in no table; it does not count as a delivery: %s",
            code,
            text,
        )
        if len(self._logged) == MAX_LOGGED:
            log.warning("%d unknown status texts were logged; more are only counted", MAX_LOGGED)
