"""The report's charts: data in, one SVG element out, as text for a page that brings the colours.

Everything is drawn in CSS pixels for a given width, so that type keeps its size on a phone. Marks
carry classes and no colours: the page's style decides, in light, dark and print. Each chart tells
in `aria-label` what it shows, figures included.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar
from unicodedata import category
from xml.etree import ElementTree

from persona.evaluation.figures import LEVEL, Gains, Metric, decimal, quantity
from persona.evaluation.metrics import Calibration
from persona.evaluation.results import LOSS_POINTS, DeviceResult, Estimate, PrototypeMap, loses
from persona.formats.measurement import Latency

WIDE = 720
NARROW = 350
HALF = 440
THIRD = 225
"""Widths of a chart beside a table, and of one of three charts in a row."""

COLOURS = 8
SHAPES = 4
"""A prototype's mark is told apart by colour and by shape; together they repeat after 32."""

MOST_MARKS = 600
LONGEST_LABEL = 36

T = TypeVar("T")


Role = Literal["static", "edited", "control", "other"]


@dataclass(frozen=True)
class Row:
    """One way to serve the devices, and how it is emphasised."""

    label: str
    estimate: Estimate
    role: Role = "other"


@dataclass(frozen=True)
class Course:
    """One way to serve the devices as something counted grows. points: count -> estimate."""

    label: str
    points: Mapping[int, Estimate]
    role: Role = "other"


class _Drawing:
    """An SVG element under construction."""

    def __init__(self, width: float, height: float, text: str) -> None:
        self.root = ElementTree.Element(
            "svg",
            {
                "viewBox": f"0 0 {_number(width)} {_number(height)}",
                "width": _number(width),
                "height": _number(height),
                "role": "img",
                "aria-label": _printable(text),
            },
        )

    def mark(self, tag: str, style: str, title: str = "", **geometry: float | str) -> None:
        """A shape of class `style`; `title` is shown when pointed at."""
        element = ElementTree.SubElement(self.root, tag, {"class": style})
        for name, value in geometry.items():
            written = value if isinstance(value, str) else _number(value)
            element.set(name.replace("_", "-"), written)
        if title:
            ElementTree.SubElement(element, "title").text = _printable(title)

    def text(self, x: float, y: float, style: str, text: str) -> None:
        """Text of class `style` on the baseline `y`."""
        position = {"class": style, "x": _number(x), "y": _number(y)}
        ElementTree.SubElement(self.root, "text", position).text = _printable(text)

    def line(
        self, x1: float, y1: float, x2: float, y2: float, style: str, thickness: float = 1
    ) -> None:
        """A straight line of class `style`, which may set another thickness."""
        self.mark("line", style, x1=x1, y1=y1, x2=x2, y2=y2, stroke_width=thickness)

    def __str__(self) -> str:
        return ElementTree.tostring(self.root, encoding="unicode")


@dataclass(frozen=True)
class _Scale:
    """A linear map from values [low, high] to pixels [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, about: int) -> list[tuple[float, str]]:
        """Round values inside, at most `about` steps apart, each with its label."""
        least = (self.high - self.low) / about
        power = 10.0 ** math.floor(math.log10(least))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= least * (1 - 1e-9))
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(i * step, decimal(i * step, decimals)) for i in range(first, last + 1)]


def comparison(
    rows: Sequence[Row], rivals: Sequence[Row], metric: Metric, width: int = WIDE
) -> str:
    """Mean and 95 % interval of each way to serve the same devices; the static mean is ruled.

    Of differences (`Gains`) zero is ruled.
    """
    every = [*rows, *rivals]
    texts = [
        f"{r.label}: {metric.score(r.estimate.mean)}, interval {metric.range(r.estimate)}"
        for r in every
    ]
    narrow = width < WIDE
    pitch, top, heading = (46, 30, 30) if narrow else (30, 18, 34)
    bottom = top + pitch * len(every) + (heading if rivals else 0) - (12 if narrow else 0)
    drawing = _Drawing(
        width, bottom + 44, f"{metric.title} with {LEVEL} intervals. " + "; ".join(texts) + "."
    )
    labels = max(96, 7 * min(LONGEST_LABEL, max(len(r.label) for r in every)))
    ranges = max(112, 14 + round(7.2 * max(len(_bounds(r, metric)) for r in every)))
    figures = ranges + (84 if isinstance(metric, Gains) else 56)
    left, right = (8, width - 8) if narrow else (labels + 8, width - figures)
    values = [v * metric.factor for r in every for v in (r.estimate.low, r.estimate.high)]
    if isinstance(metric, Gains):
        values.append(0.0)
    x = _Scale(*_padded(min(values), max(values)), left, right)

    for value, label in x.ticks(6):
        drawing.line(x(value), top - 14, x(value), bottom, "grid")
        drawing.text(x(value), bottom + 16, "tick middle", label)
    unit = f", {metric.unit}" if metric.unit else ""
    drawing.text((left + right) / 2, bottom + 36, "axis middle", f"{metric.title}{unit}")
    if isinstance(metric, Gains):
        drawing.line(x(0), top - 14, x(0), bottom, "zero")
    for row in rows:
        if row.role == "static":
            middle = x(row.estimate.mean * metric.factor)
            drawing.line(middle, top - 14, middle, bottom, "reference")

    y = float(top)
    for index, row in enumerate(every):
        if rivals and index == len(rows):
            drawing.text(8 if narrow else 0, y + (2 if narrow else 12), "heading", "Rivals")
            y += heading
        _estimate(drawing, row, metric, x, y, None if narrow else ranges)
        y += pitch
    return str(drawing)


def _bounds(row: Row, metric: Metric) -> str:
    return metric.range(row.estimate).removesuffix(metric.unit).strip()


def _estimate(
    drawing: _Drawing, row: Row, metric: Metric, x: _Scale, y: float, ranges: int | None
) -> None:
    """One row: its label, its dot on its interval, its figures.

    ranges: room for the interval's bounds at the right; None where all figures stand above the dot.
    """
    mean, interval, bounds = (
        metric.score(row.estimate.mean),
        metric.range(row.estimate),
        _bounds(row, metric),
    )
    label = _shortened(row.label, 24 if ranges is None else LONGEST_LABEL)
    drawing.text(8 if ranges is None else 0, y + 4, f"label {row.role}", label)
    if ranges is None:
        drawing.text(NARROW - 8, y + 4, f"value end {row.role}", f"{mean} ({bounds})")
    else:
        drawing.text(WIDE - ranges, y + 4, f"value end {row.role}", mean)
        drawing.text(WIDE, y + 4, "value end quiet", bounds)
    line = y + 18 if ranges is None else y
    low, middle, high = (
        x(v * metric.factor) for v in (row.estimate.low, row.estimate.mean, row.estimate.high)
    )
    drawing.line(low, line, high, line, f"interval {row.role}")
    title = f"{row.label}: {mean} ({interval})"
    drawing.mark("circle", f"dot {row.role}", title, cx=middle, cy=line, r=4.5)


def staleness(courses: Sequence[Course], metric: Gains, width: int = WIDE) -> str:
    """Gains against the samples that came since the window, with intervals; zero is ruled.

    Courses are named where they end. Intervals of one age stand beside each other.
    """
    ages = sorted({age for course in courses for age in course.points})
    every = [e for course in courses for e in course.points.values()]
    texts = [
        f"{c.label}: "
        + ", ".join(f"{metric.gain(e.mean)} after {age}" for age, e in sorted(c.points.items()))
        for c in courses
    ]
    height = 260 + 15 * max(0, len(courses) - 3)
    drawing = _Drawing(width, height, f"{metric.title} by age of the edit. {'; '.join(texts)}.")
    longest = 16 if width < WIDE else LONGEST_LABEL
    names = 7.5 * min(longest, max(len(c.label) for c in courses))
    left, top, bottom = 52, 26, height - 46
    right = width - names - 16
    x = _Scale(ages[0], ages[-1], left + 14, right - 14)
    low, high = (
        metric.factor * limit
        for limit in (min(0.0, *(e.low for e in every)), max(0.0, *(e.high for e in every)))
    )
    y = _Scale(*_padded(low, high), bottom, top)
    unit = f", {metric.unit}" if metric.unit else ""
    drawing.text(0, 12, "axis", f"{metric.title}{unit}")
    for value, text in y.ticks(6):
        drawing.line(left, y(value), right, y(value), "zero" if value == 0 else "grid")
        drawing.text(left - 8, y(value) + 4, "tick end", text)
    for age in ages:
        drawing.text(x(age), bottom + 17, "tick middle", str(age))
    drawing.text((left + right) / 2, bottom + 38, "axis middle", "Samples since the window")
    for index, course in enumerate(courses):
        beside = 7 * (index - (len(courses) - 1) / 2)
        places = [
            (x(age) + beside, y(e.mean * metric.factor)) for age, e in sorted(course.points.items())
        ]
        points = " ".join(f"{_number(a)},{_number(b)}" for a, b in places)
        drawing.mark("polyline", f"course {course.role}", points=points)
        for (across, middle), (age, estimate) in zip(
            places, sorted(course.points.items()), strict=True
        ):
            down, up = (y(v * metric.factor) for v in (estimate.low, estimate.high))
            title = f"{course.label} after {age}: {metric.gain(estimate.mean)}"
            drawing.line(across, down, across, up, f"interval {course.role}")
            drawing.mark("circle", f"dot {course.role}", title, cx=across, cy=middle, r=4.5)
    ends = sorted(courses, key=lambda c: -c.points[max(c.points)].mean)
    lowest = -math.inf
    for course in ends:
        lowest = max(y(course.points[max(course.points)].mean * metric.factor) + 4, lowest + 15)
        drawing.text(right + 12, lowest, f"label {course.role}", _shortened(course.label, longest))
    return str(drawing)


def gains(
    devices: Sequence[DeviceResult], gain: Estimate, metric: Metric, width: int = WIDE
) -> str:
    """Edited minus static of each device, sorted; the mean with its interval; the loss limit.

    Of very many devices, as many as can be told apart are drawn, evenly by rank.
    """
    ordered = sorted(devices, key=lambda d: d.edited - d.static)
    found = [(d.edited - d.static) * metric.factor for d in ordered]
    limit = -LOSS_POINTS * metric.factor
    unit = metric.gain_unit or metric.title
    drawing = _Drawing(
        width,
        280,
        f"Gain of each device, sorted. Lowest {metric.gain(found[0] / metric.factor)}, "
        f"median {metric.gain(statistics.median(found) / metric.factor)}, "
        f"highest {metric.gain(found[-1] / metric.factor)}; mean {metric.gain(gain.mean)}, "
        f"{LEVEL} interval {metric.gain_range(gain)}.",
    )
    left, right, top, bottom = 44, width - 4, 26, 244
    mean, low, high = (v * metric.factor for v in (gain.mean, gain.low, gain.high))
    y = _Scale(*_padded(min(found[0], 1.3 * limit), max(found[-1], high, -limit)), bottom, top)
    drawing.text(0, 12, "axis", f"Gain, {unit}")
    for value, label in y.ticks(6):
        drawing.line(left, y(value), right, y(value), "zero" if value == 0 else "grid")
        drawing.text(left - 8, y(value) + 4, "tick end", label)
    shown = _thinned(ordered)
    pitch = (right - left) / len(shown)
    thickness = pitch + 0.5 if pitch < 3 else 1.25
    marks = [
        (
            left + (index + 0.5) * pitch,
            y((device.edited - device.static) * metric.factor),
            "loses" if loses(device.edited - device.static) else "gains",
            f"{device.name}: {metric.gain(device.edited - device.static)}",
        )
        for index, device in enumerate(shown)
    ]
    for centre, height, style, _ in marks:
        drawing.line(centre, y(0), centre, height, f"stem {style}", thickness)
    drawing.mark(
        "rect", "band", x=left, width=right - left, y=y(high), height=max(1.0, y(low) - y(high))
    )
    drawing.line(left, y(mean), right, y(mean), "mean")
    drawing.line(left, y(limit), right, y(limit), "limit")
    for centre, height, style, title in marks:
        radius = min(5.0, max(1.0, 0.36 * pitch))
        drawing.mark("circle", f"point {style}", title, cx=centre, cy=height, r=radius)

    named, beyond = f"mean {metric.gain(gain.mean)}", f"{metric.threshold(LOSS_POINTS)} lost"
    if mean >= 0:
        drawing.text(left + 6, y(high) - 8, "note", named)
        drawing.text(right - 4, y(limit) + 15, "note end loses", beyond)
    else:
        drawing.text(right - 4, y(low) + 15, "note end", named)
        below = max(y(limit) + 15, y(low) + 30)
        drawing.text(right - 4, below, "note end loses", beyond)
    drawing.text((left + right) / 2, bottom + 26, "axis middle", "Devices, from least to most gain")
    return str(drawing)


def prototype_map(places: PrototypeMap, width: int = HALF) -> str:
    """Codes of devices on two principal components, marked by prototype; centres are numbered."""
    left, top = 1, 1
    counts = [places.members.count(k) for k in range(len(places.centres))]
    every = [*places.points, *places.centres]
    (x_low, x_high), (y_low, y_high) = (
        _padded(min(p[axis] for p in every), max(p[axis] for p in every)) for axis in (0, 1)
    )
    inner = width - 2 * left
    ratio = (y_high - y_low) / (x_high - x_low)
    height = inner * min(1.0, max(0.5, ratio))
    unit = min(inner / (x_high - x_low), height / (y_high - y_low))
    x_half, y_half = inner / unit / 2, height / unit / 2
    x_mid, y_mid = (x_low + x_high) / 2, (y_low + y_high) / 2
    x = _Scale(x_mid - x_half, x_mid + x_half, left, width - left)
    y = _Scale(y_mid - y_half, y_mid + y_half, top + height, top)
    drawing = _Drawing(
        width,
        top + height + 36,
        f"Codes of {len(places.points)} devices around {len(places.centres)} prototypes. "
        + "; ".join(f"prototype {k}: {n} devices" for k, n in enumerate(counts))
        + ".",
    )
    drawing.mark("rect", "frame", x=left, y=top, width=inner, height=height)
    for point, member in _thinned(list(zip(places.points, places.members, strict=True))):
        symbol(drawing, x(point[0]), y(point[1]), member, 4.0, f"prototype {member}")
    for index, centre in enumerate(places.centres):
        at = {"cx": x(centre[0]), "cy": y(centre[1])}
        drawing.mark("circle", f"centre p{index % COLOURS}", f"prototype {index}", **at, r=9.5)
        drawing.text(at["cx"], at["cy"] + 3.7, "number middle", str(index))
    drawing.text(
        width / 2,
        top + height + 24,
        "axis middle",
        "First principal component (across) and second (up), same scale",
    )
    return str(drawing)


def symbol(
    drawing: _Drawing, x: float, y: float, prototype: int, size: float, title: str = ""
) -> None:
    """The mark of a prototype's members."""
    style = f"member p{prototype % COLOURS}"
    shape = (prototype + prototype // COLOURS) % SHAPES
    if shape == 0:
        drawing.mark("circle", style, title, cx=x, cy=y, r=0.95 * size)
        return
    corners = {
        1: ((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)),
        2: ((0, -1.1), (1.1, 0.85), (-1.1, 0.85)),
        3: ((0, -1.2), (1.2, 0), (0, 1.2), (-1.2, 0)),
    }[shape]
    points = " ".join(f"{_number(x + size * a)},{_number(y + size * b)}" for a, b in corners)
    drawing.mark("polygon", style, title, points=points)


def key(prototype: int) -> str:
    """A prototype's mark by itself, for a legend."""
    drawing = _Drawing(14, 14, f"mark of prototype {prototype}")
    symbol(drawing, 7, 7, prototype, 4.5)
    return str(drawing)


def curve(name: str, steps: Sequence[int], loss: Sequence[float], width: int = THIRD) -> str:
    """Held-out loss against training steps; the last third is shaded, the chosen state marked."""
    left, right, top, bottom = 46, width - 18, 26, 156
    best = min(range(len(loss)), key=lambda i: loss[i])
    drawing = _Drawing(
        width,
        bottom + 42,
        f"Held-out loss of {name}: {loss[0]:.4f} after {steps[0]} steps, lowest {loss[best]:.4f} "
        f"after {steps[best]}, {loss[-1]:.4f} after {steps[-1]}.",
    )
    x = _Scale(0, steps[-1], left, right)
    y = _Scale(*_padded(min(loss), max(loss)), bottom, top)
    for value, label in y.ticks(6):
        drawing.line(left, y(value), right, y(value), "grid")
        drawing.text(left - 8, y(value) + 4, "tick end", label)
    third = x(steps[-1] * 2 / 3)
    drawing.mark("rect", "third", x=third, width=right - third, y=top, height=bottom - top)
    ends_high = loss[-1] > (min(loss) + max(loss)) / 2
    beside = bottom - 8 if ends_high else top + 14
    drawing.text((third + right) / 2, beside, "note middle quiet", "last third")
    for value, _ in x.ticks(2):
        drawing.text(x(value), bottom + 17, "tick middle", f"{value:.0f}")
    places = [(x(s), y(v)) for s, v in zip(steps, loss, strict=True)]
    drawing.mark(
        "polyline", "curve", points=" ".join(f"{_number(a)},{_number(b)}" for a, b in places)
    )
    for index, (a, b) in enumerate(places):
        title = f"{loss[index]:.4f} after {steps[index]} steps"
        drawing.mark("circle", "check", title, cx=a, cy=b, r=4)
    drawing.mark("circle", "check chosen", cx=places[best][0], cy=places[best][1], r=4)
    drawing.text(0, 12, "axis", "Held-out loss, nats")
    drawing.text((left + right) / 2, bottom + 36, "axis middle", "Training steps")
    return str(drawing)


def reliability(found: Calibration, name: str, width: int = THIRD) -> str:
    """How often a model is right against how sure it says it is; the diagonal is the ideal.

    A dot's area is the share of queries that it stands for.
    """
    left, top, side = 46, 26, width - 64
    drawing = _Drawing(
        width,
        top + side + 42,
        f"Reliability of {name}: expected calibration error {decimal(found.error, 3)}. "
        + "; ".join(
            f"at confidence {decimal(c, 2)} right {decimal(a, 2)}"
            for c, a in zip(found.confidence, found.accuracy, strict=True)
        ),
    )
    x, y = _Scale(0, 1, left, left + side), _Scale(0, 1, top + side, top)
    for value, label in x.ticks(4):
        drawing.line(left, y(value), left + side, y(value), "grid")
        drawing.text(left - 8, y(value) + 4, "tick end", label)
        drawing.text(x(value), top + side + 17, "tick middle", label)
    drawing.line(x(0), y(0), x(1), y(1), "reference")
    for sure, right, share in zip(found.confidence, found.accuracy, found.share, strict=True):
        title = f"confidence {decimal(sure, 2)}: right {decimal(right, 2)}"
        radius = max(2.5, 18 * math.sqrt(share))
        drawing.mark("circle", "member p0", title, cx=x(sure), cy=y(right), r=radius)
    drawing.text(0, 12, "axis", "Right, share of queries")
    drawing.text(left + side / 2, top + side + 36, "axis middle", "Confidence")
    return str(drawing)


def latency(base: Latency, edited: Latency, width: int = WIDE) -> str:
    """One call of base and edited, from p50 to p99, from zero on."""
    rows = (("Base", base, "static"), ("Edited", edited, "edited"))
    texts = [
        f"{label}: p50 {quantity(t.p50_us)}, p90 {quantity(t.p90_us)}, p99 {quantity(t.p99_us)}"
        for label, t, _ in rows
    ]
    drawing = _Drawing(width, 116, "Microseconds a call. " + "; ".join(texts) + ".")
    left, right, bottom = 68, width - 14, 72
    x = _Scale(0, 1.04 * max(base.p99_us, edited.p99_us), left, right)
    for value, label in x.ticks(5 if width < WIDE else 8):
        drawing.line(x(value), 4, x(value), bottom, "zero" if value == 0 else "grid")
        drawing.text(x(value), bottom + 16, "tick middle", label)
    drawing.text((left + right) / 2, bottom + 36, "axis middle", "Time of one call, µs")
    for (label, times, style), y in zip(rows, (22, 52), strict=True):
        drawing.text(0, y + 4, f"label {style}", label)
        drawing.line(x(times.p50_us), y, x(times.p99_us), y, f"interval {style}")
        drawing.line(x(times.p99_us), y - 6, x(times.p99_us), y + 6, f"interval {style}")
        for name, value, mark in (("p90", times.p90_us, "ring"), ("p50", times.p50_us, "dot")):
            title = f"{label} {name}: {quantity(value)} µs"
            drawing.mark("circle", f"{mark} {style}", title, cx=x(value), cy=y, r=5)
    return str(drawing)


def _padded(low: float, high: float) -> tuple[float, float]:
    """A little room at both ends; some room where there is none between them."""
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def _thinned(items: Sequence[T]) -> Sequence[T]:
    """At most MOST_MARKS of them, evenly, first and last included."""
    if len(items) <= MOST_MARKS:
        return items
    return [items[round(i * (len(items) - 1) / (MOST_MARKS - 1))] for i in range(MOST_MARKS)]


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def _printable(text: str) -> str:
    """XML has no place for control characters, surrogates and noncharacters."""
    banned = ("Cc", "Cs", "Cn")
    return "".join("\N{REPLACEMENT CHARACTER}" if category(c) in banned else c for c in text)


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
