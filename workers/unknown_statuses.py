"""Status texts that are in no table: counted by code, and each logged once.

Such a text never counts as a delivery, see `postback.codes`. It may be a new word of the
provider's, so somebody should read it and add it to the table. Anybody who may POST can send
any text: of each only the beginning is logged, without its digits, and of all only the first
`MAX_LOGGED`.
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
    """Counts them all; remembers which were logged."""

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def count(self, code: str, status: str) -> None:
        """Count one postback with this code, whose status text is in no table."""
        metrics.UNKNOWN_STATUS[code,].inc()
        text = ascii(_DIGIT.sub("#", status[:LENGTH]))
        if text in self._logged or len(self._logged) >= MAX_LOGGED:
            return
        self._logged.add(text)
        log.warning("%s has a status text that is in no table, no delivery: %s", code, text)
        if len(self._logged) == MAX_LOGGED:
            log.warning("%d unknown status texts were logged; more are counted alone", MAX_LOGGED)
