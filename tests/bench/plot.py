"""Charts as SVG without a library: small, and readable on light and dark pages."""

import math
from collections.abc import Iterator
from typing import Final
from xml.sax.saxutils import escape

from tests.bench.measure import number
from tests.bench.results import Bars, Lines

WIDTH: Final = 720
_LABELS: Final = 250
_ROW: Final = 30
_TOP: Final = 40
_HEIGHT: Final = 260
_COLOURS: Final = ("#2f81f7", "#d29922", "#3fb950", "#f85149")

# The colours are visible on light and dark pages; only the text needs another colour.
_STYLE: Final = """\
<style>
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 } .axis { stroke: #8c959f; stroke-width: 1 }
.bar { fill: #8c959f } .ours { fill: #2f81f7 }
.spread { stroke: #24292f; stroke-width: 1.5; opacity: .7 }
.line { fill: none; stroke-width: 2 }
@media (prefers-color-scheme: dark) { text { fill: #c9d1d9 } .spread { stroke: #c9d1d9 } }
</style>"""


def draw(chart: Bars | Lines) -> str:
    """A chart as SVG."""
    parts = _bars(chart) if isinstance(chart, Bars) else _lines(chart)
    rows = len(chart.bars) if isinstance(chart, Bars) else 0
    height = _TOP + rows * _ROW + 10 if rows else _HEIGHT
    lines = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img">\n'
        f"<title>{escape(chart.title)}</title>\n{_STYLE}\n{lines}\n</svg>\n"
    )


def _bars(chart: Bars) -> Iterator[str]:
    yield _text(0, 18, f"{chart.title} ({chart.unit})", "title")
    most = max(spread.most for _, spread in chart.bars) or 1
    scale = (WIDTH - _LABELS - 90) / most
    for row, (label, spread) in enumerate(chart.bars):
        y = _TOP + row * _ROW
        kind = "bar ours" if label in chart.ours else "bar"
        yield _text(_LABELS - 8, y + 14, label, "", "end")
        width = spread.median * scale
        yield f'<rect class="{kind}" x="{_LABELS}" y="{y}" width="{width:.1f}" height="20" rx="2"/>'
        if spread.rounds > 1:
            ends = [_LABELS + value * scale for value in (spread.least, spread.most)]
            yield _segment("spread", ends[0], y + 10, ends[1], y + 10)
        at = _LABELS + max(width, spread.most * scale) + 8
        yield _text(at, y + 14, number(spread.median))


def _lines(chart: Lines) -> Iterator[str]:
    yield _text(0, 18, f"{chart.title} ({chart.unit})", "title")
    points = [point for _, series in chart.series for point in series]
    right = max(x for x, _ in points)
    most = _round_up(max(y for _, y in points))
    left, bottom = 50, _HEIGHT - 40
    across, up = (WIDTH - left - 140) / right, (bottom - _TOP) / most
    yield _segment("axis", left, bottom, left + right * across, bottom)
    yield _segment("axis", left, bottom, left, _TOP)
    for share in (0, 0.5, 1):
        yield _text(left - 8, bottom - most * share * up + 4, f"{most * share:g}", "", "end")
    yield _text(left + right * across, bottom + 20, f"{right:.0f} {chart.x}", "", "end")
    for colour, (_, series) in zip(_COLOURS, chart.series, strict=False):
        path = " ".join(f"{left + x * across:.1f},{bottom - y * up:.1f}" for x, y in series)
        yield f'<polyline class="line" stroke="{colour}" points="{path}"/>'
    yield from _keys(chart, left + right * across + 8, bottom, up)


def _keys(chart: Lines, x: float, bottom: float, up: float) -> Iterator[str]:
    """The name of each series at its end; names that would overlap are moved apart."""
    ends = sorted((bottom - series[-1][1] * up, label) for label, series in chart.series)
    last = -math.inf
    for y, label in ends:
        last = max(y + 4, last + 16)
        yield _text(x, last, label)


def _round_up(value: float) -> float:
    """The next round number for an axis."""
    power = 10.0 ** math.floor(math.log10(max(value, 1e-9)))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value)


def _segment(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )
