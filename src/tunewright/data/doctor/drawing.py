"""A histogram as an SVG picture."""

from __future__ import annotations

from typing import Final

from tunewright.data.doctor.histogram import Histogram
from tunewright.data.marks import escaped

_WIDTH: Final = 640
_HEIGHT: Final = 150
_LEFT: Final = 8
_BASE: Final = 125
_TOP: Final = 14


def drawing(found: Histogram, unit: str, limit: int | None = None) -> str:
    """One bar per bin, all of one width, with its range and count as a tooltip; a red line where `limit` lies."""
    total, tallest = sum(found.counts), max([*found.counts, 1])
    width = (_WIDTH - 2 * _LEFT) / len(found.counts)
    bars = "".join(_bar(number, count, tallest, width, _range(found, number)) for number, count in enumerate(found.counts))
    middle = len(found.counts) // 2
    marks = "".join(_mark(_LEFT + at * width, str(found.edges[at]), anchor) for at, anchor in
                    ((0, "start"), (middle, "middle"), (len(found.counts), "end")))
    label = escaped(f"histogram of {total} rows by {unit}, tallest bar {tallest} rows")
    return (f'<svg role="img" aria-label="{label}" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}">'
            f'{bars}<line x1="{_LEFT}" y1="{_BASE}" x2="{_WIDTH - _LEFT}" y2="{_BASE}"/>{marks}{_limit(found, width, limit)}</svg>')


def _bar(number: int, count: int, tallest: int, width: float, told: str) -> str:
    height = max((_BASE - _TOP) * count / tallest, 1.0 if count else 0.0)
    return (f'<rect x="{_LEFT + number * width:.1f}" y="{_BASE - height:.1f}" width="{max(width - 1, 0.5):.1f}" height="{height:.1f}">'
            f"<title>{escaped(told)}: {count}</title></rect>")


def _range(found: Histogram, number: int) -> str:
    low, high = found.edges[number], found.edges[number + 1] - 1
    return str(low) if low == high else f"{low} to {high}"


def _mark(x: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{_BASE + 14}" text-anchor="{anchor}">{escaped(text)}</text>'


def _limit(found: Histogram, width: float, limit: int | None) -> str:
    """The line after the last bin that holds nothing above the limit, within its bin in proportion."""
    if limit is None or not found.edges[0] <= limit < found.edges[-1]:
        return ""
    number = max(at for at, edge in enumerate(found.edges[:-1]) if edge <= limit)
    low, high = found.edges[number], found.edges[number + 1]
    x = _LEFT + (number + (limit + 1 - low) / (high - low)) * width
    return (f'<line class="limit" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{_BASE}"/>'
            f'<text x="{x:.1f}" y="{_TOP - 3}" text-anchor="middle">{limit}</text>')
