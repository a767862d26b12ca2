"""The result of a case: figures by name, and the tables and charts that show them."""

from collections.abc import Sequence

import msgspec

from tests.bench.measure import Spread


class Table(msgspec.Struct, frozen=True):
    """A table for people; the first column is text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class Bars(msgspec.Struct, frozen=True):
    """One bar for each label; ours have another colour.

    Attributes:
        name: of the file, without its suffix.
    """

    name: str
    title: str
    unit: str
    bars: Sequence[tuple[str, Spread]]
    ours: Sequence[str]


class Lines(msgspec.Struct, frozen=True):
    """Some series with the same x axis."""

    name: str
    title: str
    unit: str
    x: str
    series: Sequence[tuple[str, Sequence[tuple[float, float]]]]


class Section(msgspec.Struct, frozen=True):
    """The section of one case.

    Attributes:
        note: some sentences about the method.
        figures: by dotted names.
    """

    title: str
    note: str
    figures: dict[str, Spread]
    tables: Sequence[Table]
    charts: Sequence[Bars | Lines] = ()
