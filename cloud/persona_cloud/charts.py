"""Charts as SVG, drawn on the server: no script, no library, colours from the page's style sheet.

A chart is an image with a title for those who cannot see it; its numbers stand in a table beside
it. Series differ by colour and by shape or dash, so that none is told by colour alone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

NARROW, WIDE = 560, 1160
"""Widths for half a page and for a whole one, so that text has one size on both."""

HEIGHT = 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 12, 28
MAX_SERIES = 8


@dataclass(frozen=True)
class Series:
    """A line: its name and a value for each label of the chart, None where there is none."""

    name: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class Point:
    """A point of a map, in any units. group: from 0, which colour and mark it has."""

    x: float
    y: float
    group: int


def lines(title: str, labels: Sequence[str], series: Sequence[Series]) -> Markup:
    """A line for each series over evenly spaced labels, from 0 up, on a whole page's width."""
    known = [v for s in series for v in s.values if v is not None]
    ticks = _ticks(max(known, default=0.0))
    top = ticks[-1]

    def x(index: int) -> float:
        return _LEFT + (WIDE - _LEFT - _RIGHT) * (index + 0.5) / max(1, len(labels))

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * value / top

    parts = [*_grid(ticks, y, WIDE), *_labels(labels, x, WIDE)]
    for number, one in enumerate(series):
        for run in _runs(one.values):
            path = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in run)
            parts.append(f'<polyline class="line s{number}" points="{path}"/>')
            if len(labels) <= 40:
                parts += [_mark(x(i), y(v), number) for i, v in run]
    return _svg(title, parts, WIDE, HEIGHT)


def bars(title: str, labels: Sequence[str], values: Sequence[float], width: int = NARROW) -> Markup:
    """A bar for each label, from 0 up."""
    ticks = _ticks(max(values, default=0.0))
    step = (width - _LEFT - _RIGHT) / max(1, len(labels))

    def x(index: int) -> float:
        return _LEFT + step * (index + 0.5)

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * value / ticks[-1]

    parts = [*_grid(ticks, y, width), *_labels(labels, x, width)]
    wide = max(1.0, min(48.0, step * 0.7))
    for index, value in enumerate(values):
        height = HEIGHT - _BOTTOM - y(value)
        if height > 0:
            parts.append(
                f'<rect class="bar" x="{x(index) - wide / 2:.1f}" y="{y(value):.1f}" '
                f'width="{wide:.1f}" height="{height:.1f}"><title>{escape(labels[index])}: '
                f"{number_text(value)}</title></rect>"
            )
    return _svg(title, parts, width, HEIGHT)


def scatter(title: str, points: Sequence[Point], size: int = 520) -> Markup:
    """Points in a square that they fill, without axes: only their neighbourhood means something."""
    xs, ys = [p.x for p in points], [p.y for p in points]
    parts = [f'<rect class="frame" x="0.5" y="0.5" width="{size - 1}" height="{size - 1}" rx="6"/>']

    def place(value: float, values: list[float]) -> float:
        low, high = min(values), max(values)
        share = 0.5 if high <= low else (value - low) / (high - low)
        return 20 + share * (size - 40)

    parts += [
        _mark(place(p.x, xs), size - place(p.y, ys), p.group % MAX_SERIES, soft=True)
        for p in points
    ]
    return _svg(title, parts, size, size)


def share_bar(title: str, share: float) -> Markup:
    """A bar that is filled to a share from 0 to 1."""
    filled = max(0.0, min(1.0, share)) * 200
    round_ = min(7.0, filled)
    parts = [
        '<rect class="frame" x="0.5" y="0.5" width="199" height="13" rx="6.5"/>',
        f'<rect class="bar" width="{filled:.1f}" height="14" rx="{round_:.1f}"/>',
    ]
    return _svg(title, parts, 200, 14, "share")


def legend_mark(number: int) -> Markup:
    """The sign of a series, for a legend."""
    parts = [f'<path class="line s{number}" d="M0 8h24"/>', _mark(12, 8, number)]
    return _svg("", parts, 24, 16, "key")


def number_text(value: float) -> str:
    """A number as people read it: `1,234`, `12.3`, `0.0123`."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 1:
        return f"{value:,.1f}".removesuffix(".0")
    return f"{value:.2g}"


def _ticks(largest: float) -> list[float]:
    """Round numbers from 0 to at least the largest, four or five of them."""
    if largest <= 0:
        return [0.0, 1.0]
    rough = largest / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    return [step * i for i in range(math.ceil(largest / step - 1e-9) + 1)]


def _grid(ticks: Sequence[float], y: Callable[[float], float], width: int) -> list[str]:
    return [
        f'<path class="grid" d="M{_LEFT} {y(t):.1f}H{width - _RIGHT}"/>'
        f'<text class="tick" x="{_LEFT - 8}" y="{y(t) + 4:.1f}" text-anchor="end">'
        f"{number_text(t)}</text>"
        for t in ticks
    ]


def _labels(labels: Sequence[str], x: Callable[[int], float], width: int) -> list[str]:
    """As many as there is room for, evenly chosen."""
    every = max(1, math.ceil(len(labels) * 60 / (width - _LEFT - _RIGHT)))
    return [
        f'<text class="tick" x="{x(i):.1f}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{escape(label)}</text>"
        for i, label in enumerate(labels)
        if i % every == 0
    ]


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """Stretches without a gap."""
    runs: list[list[tuple[int, float]]] = [[]]
    for index, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((index, value))
    return [run for run in runs if run]


def _mark(x: float, y: float, number: int, *, soft: bool = False) -> str:
    """One of eight shapes."""
    r = 3.5
    shapes = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}"',
        f'<path d="M{x:.1f} {y - 4.2:.1f}l4.2 7.4h-8.4z"',
        f'<rect x="{x - 3.2:.1f}" y="{y - 3.2:.1f}" width="6.4" height="6.4"',
        f'<path d="M{x:.1f} {y - 4.6:.1f}l4.6 4.6l-4.6 4.6l-4.6 -4.6z"',
        f'<path d="M{x:.1f} {y + 4.2:.1f}l4.2 -7.4h-8.4z"',
        f'<path d="M{x - 1.4:.1f} {y - 4.2:.1f}h2.8v2.8h2.8v2.8h-2.8v2.8h-2.8v-2.8h-2.8v-2.8h2.8z"',
        f'<rect x="{x - 2:.1f}" y="{y - 4.4:.1f}" width="4" height="8.8"',
        f'<rect x="{x - 4.4:.1f}" y="{y - 2:.1f}" width="8.8" height="4"',
    )
    kind = "mark soft" if soft else "mark"
    return f'{shapes[number % MAX_SERIES]} class="{kind} s{number % MAX_SERIES}"/>'


def _svg(title: str, parts: Sequence[str], width: int, height: int, kind: str = "chart") -> Markup:
    named = f'role="img" aria-label="{escape(title)}"' if title else 'aria-hidden="true"'
    return Markup(
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f"{named}>{''.join(parts)}</svg>"
    )
