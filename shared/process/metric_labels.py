"""Metric labels that are cheap to use and cannot grow without bound."""

import re
from typing import Final, TypeVar

from prometheus_client import Counter, Histogram

_Metric = TypeVar("_Metric", Counter, Histogram)

OTHER: Final = "other"
UNKNOWN: Final = "unknown"

# Seven digits may be a phone number, with separators too, unless they begin with zeros as an old
# operator-id (0001470).
_SAFE: Final = re.compile(r"000\d{4}|(?!(?:\D*\d){7})[A-Za-z0-9_-]{1,16}")


class Children(dict[tuple[str, ...], _Metric]):
    """A metric's children by their label values.

    `labels()` checks, joins and locks; here it is asked once for each combination of values, which
    must be few.
    """

    def __init__(self, metric: _Metric) -> None:
        super().__init__()
        self._metric: _Metric = metric

    def __missing__(self, values: tuple[str, ...]) -> _Metric:
        child: _Metric = self._metric.labels(*values)
        self[values] = child
        return child


class Bounded:
    """What the provider sends, as a label: the first so many values that look like ids.

    None is `unknown`; what comes after them, is long, or could be a phone number is `other`. So
    nobody who can POST can make this process hold, or tell, more than that.

    Args:
        most: distinct values of one process's life.
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
