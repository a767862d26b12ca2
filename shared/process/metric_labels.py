"""Metric labels that are cheap to use and have a limited number of values."""

import re
from typing import Final, TypeVar

from prometheus_client import Counter, Histogram

_Metric = TypeVar("_Metric", Counter, Histogram)

OTHER: Final = "other"
UNKNOWN: Final = "unknown"

# Seven digits may be a phone number, also with separators between them. 0001470 is none: old
# operator-ids begin with zeros.
_SAFE: Final = re.compile(r"000\d{4}|(?!(?:\D*\d){7})[A-Za-z0-9_-]{1,16}")


class Children(dict[tuple[str, ...], _Metric]):
    """A metric's children by their label values.

    `labels()` checks, joins and locks. This class calls it once for each combination of values;
    there must be few combinations.
    """

    def __init__(self, metric: _Metric) -> None:
        super().__init__()
        self._metric: _Metric = metric

    def __missing__(self, values: tuple[str, ...]) -> _Metric:
        child: _Metric = self._metric.labels(*values)
        self[values] = child
        return child


class Bounded:
    """Makes labels from values that the provider sends: the first values that look like ids.

    None becomes `unknown`. A value beyond the limit, a long value, or a value that may be a phone
    number becomes `other`. So a client cannot fill the memory with labels, and metrics show no
    phone number.

    Args:
        most: distinct values in the life of one process.
    """

    def __init__(self, most: int = 100) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, text: str | None) -> str:
        if text is None:
            return UNKNOWN
        if text in self._known:
            return text
        if len(self._known) >= self._most or not _SAFE.fullmatch(text):
            return OTHER
        self._known.add(text)
        return text
