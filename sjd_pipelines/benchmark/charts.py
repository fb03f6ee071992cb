"""Charts as inline SVG: lines with markers and names at their ends, and bars. Colours are left to the page's style.

Every series carries a class of its own (`tone-...`) and one of its label; a style sheet decides colour and dashes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

LEFT, TOP, BOTTOM = 46, 28, 44  # pixels around the plot
NAMES = 118  # pixels right of it, for the names of the lines
LINE = 13  # pixels between two names
MARK = 3.2


@dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
        name: written at its end.
        classes: for the style sheet.
        points: x and y, in the order they are joined.
        notes: what a pointer over each point shows; none: x and y.
    """

    name: str
    classes: str
    points: Sequence[tuple[float, float]]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Axis:
    """A scale from data to pixels.

    Attributes:
        title: with its unit.
        low: value at the first pixel.
        high: value at the last pixel.
        ticks: values and their texts.
    """

    title: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]

    @classmethod
    def spanning(cls, title: str, values: Sequence[float], from_zero: bool = True) -> "Axis":
        """Round numbers around `values`."""
        low, high = min(values), max(values)
        low = min(0.0, low) if from_zero else low
        step = _round_step((high - low) / 5 or 1)
        first, last = floor(low / step), ceil(high / step) or 1
        ticks = [(index * step, f"{index * step:.10g}") for index in range(first, last + 1)]
        return cls(title, first * step, last * step, ticks)

    @classmethod
    def between(cls, title: str, ticks: Sequence[tuple[float, str]]) -> "Axis":
        """From the first tick to the last; a single one stands at the start."""
        first, last = ticks[0][0], ticks[-1][0]
        return cls(title, first, last if last > first else first + 1, ticks)

    def place(self, value: float, start: float, end: float) -> float:
        """Pixel of `value` on a stretch of pixels."""
        return start + (value - self.low) / (self.high - self.low) * (end - start)


def line_chart(series: Sequence[Series], x: Axis, y: Axis, width: int = 470, height: int = 300) -> str:
    """Lines over a grid, each named at its right end."""
    right, base = width - NAMES, height - BOTTOM
    parts = [_open(width, height, f"{y.title} over {x.title}"), _grid(x, y, LEFT, right, TOP, base)]
    ends = []
    for line in series:
        pixels = [(x.place(a, LEFT, right), y.place(b, base, TOP)) for a, b in line.points]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in pixels)
        notes = line.notes or [f"{a:g}, {b:.3g}" for a, b in line.points]
        marks = "".join(
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{MARK}"><title>{escape(f"{line.name}: {note}")}</title></circle>'
            for (a, b), note in zip(pixels, notes)
        )
        parts.append(f'<g class="series {line.classes}"><polyline points="{path}"/>{marks}</g>')
        ends.append((max(pixels), line))
    for (a, b), at, line in _spread(ends, TOP, base):
        parts.append(
            f'<g class="name {line.classes}"><path d="M{a + MARK + 1:.1f},{b:.1f} L{right + 8:.1f},{at:.1f}"/>'
            f'<text x="{right + 11}" y="{at + 4:.1f}">{escape(line.name)}</text></g>'
        )
    return "".join([*parts, "</svg>"])


def bar_chart(shares: Sequence[float], x: str, y: Axis, width: int = 250, height: int = 134) -> str:
    """Bars at 0, 1, 2, ...; the first is drawn only if it is not empty."""
    first = 0 if shares[0] else 1
    shares = shares[first:]
    left, top, base, right = 34, 8, height - 36, width - 6
    slot = (right - left) / len(shares)
    every = max(1, ceil(len(shares) / 8))
    texts = [((index + 0.5) / len(shares), str(index + first)) for index in range(0, len(shares), every)]
    parts = [
        _open(width, height, f"{y.title} over {x}"),
        _grid(Axis(x, 0, 1, texts), y, left, right, top, base, False),
    ]
    for index, share in enumerate(shares):
        tip = y.place(share, base, top)
        parts.append(
            f'<rect class="bar" x="{left + (index + 0.1) * slot:.1f}" y="{tip:.1f}" width="{0.8 * slot:.1f}" '
            f'height="{base - tip:.1f}"><title>{index + first} {escape(x)}: {share:.1%}</title></rect>'
        )
    return "".join([*parts, "</svg>"])


def meter(value: float, limit: float, most: float, width: int = 80) -> str:
    """A bar of length `value` on a track of length `most`, with a tick at `limit`."""
    bar, tick = width * min(1.0, value / most), width * min(1.0, limit / most)
    return (
        f'<svg class="meter" width="{width}" height="12" role="img"><title>{value:.4f}, limit {limit:.4f}</title>'
        f'<rect class="track" y="3" width="{width}" height="6" rx="3"/>'
        f'<rect class="bar" y="3" width="{bar:.1f}" height="6" rx="3"/>'
        f'<line class="limit" x1="{tick:.1f}" y1="0" x2="{tick:.1f}" y2="12"/></svg>'
    )


def _open(width: int, height: int, title: str) -> str:
    box = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg {box} role="img"><title>{escape(title)}</title>'


def _grid(x: Axis, y: Axis, left: float, right: float, top: float, base: float, titled: bool = True) -> str:
    parts = ['<g class="grid">']
    for value, text in y.ticks:
        at = y.place(value, base, top)
        parts.append(f'<line x1="{left}" y1="{at:.1f}" x2="{right}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 6}" y="{at + 4:.1f}" text-anchor="end">{escape(text)}</text>')
    for value, text in x.ticks:
        at = x.place(value, left, right)
        parts.append(f'<text class="tick" x="{at:.1f}" y="{base + 16}" text-anchor="middle">{escape(text)}</text>')
    middle = (left + right) / 2
    parts.append(f'<text class="axis" x="{middle:.1f}" y="{base + 30}" text-anchor="middle">{escape(x.title)}</text>')
    if titled:
        parts.append(f'<text class="axis" x="{left - 34}" y="{top - 15}">{escape(y.title)}</text>')
    return "".join([*parts, "</g>"])


def _spread(
    ends: list[tuple[tuple[float, float], Series]], top: float, base: float
) -> list[tuple[tuple[float, float], float, Series]]:
    """Heights for the names at the ends of lines, none nearer to the next than `LINE`."""
    ends = sorted(ends, key=lambda end: end[0][1])
    heights: list[float] = []
    for (_, height), _ in ends:
        heights.append(max(height, heights[-1] + LINE) if heights else max(height, top))
    if heights and heights[-1] > base:  # push up from below
        heights[-1] = base
        for index in range(len(heights) - 2, -1, -1):
            heights[index] = min(heights[index], heights[index + 1] - LINE)
    return [(point, height, line) for (point, line), height in zip(ends, heights)]


def _round_step(step: float) -> float:
    """The next of 1, 2, 2.5, 5, 10 times a power of ten."""
    power = 10.0 ** floor(log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * 0.999)
