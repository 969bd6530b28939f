"""Charts as SVG inside a page: lines, bars and histograms, in the colours of ``page.css``.

Every chart has a text alternative for screen readers, which says what a reader of the picture would see.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from mrcnn_jax.report.page import Html, element

_WIDTH, _HEIGHT = 380.0, 240.0  # of a chart in pixels, which a page scales a little
_LEFT, _RIGHT, _TOP, _BOTTOM = 60.0, 18.0, 10.0, 40.0  # margins with the axes' numbers and names
_TICKS = 5  # about as many on an axis
NUM_COLORS = 8  # of page.css; further series have the last one


@dataclass(frozen=True)
class Series:
    """A line of a chart: its name and points, in order of x."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Mark:
    """A dashed line across a chart, at x, with its meaning."""

    x: float
    text: str


def number(value: float | None, digits: int = 1) -> str:
    """A number as text, with separators of thousands; "-" for None."""
    return "-" if value is None else f"{value:,.{digits}f}"


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number with its noun, such as "1 image" and "2,000 images"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def ticks(low: float, high: float, count: int = _TICKS) -> list[float]:
    """Some ``count`` round numbers from ``low`` to ``high``: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_text(value: float) -> str:
    """A tick's number, short: 0.25, 2e-05, 20k."""
    if value and abs(value) < 1e-4:
        return f"{value:.0e}"
    if abs(value) >= 10_000 and value % 100 == 0:
        return f"{value / 1000:g}k"
    return f"{value:g}"


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_name: str,
    y_name: str,
    y_range: tuple[float, float] | None = None,
    x_range: tuple[float, float] | None = None,
    marks: Sequence[Mark] = (),
    diagonal: bool = False,
) -> Html:
    """A figure of lines. Without a range, x reaches from the least to the largest value, and y from 0.

    ``diagonal`` adds a dashed line from corner to corner. Points that are not finite are left out.
    """
    shown = [
        Series(item.name, [point for point in item.points if all(math.isfinite(value) for value in point)])
        for item in series
    ]
    shown = [item for item in shown if item.points]
    if not shown:
        return _figure(title, element("p", "No values.", class_="soft"))
    xs = [x for item in shown for x, _ in item.points]
    ys = [y for item in shown for _, y in item.points]
    frame = _Frame(_widened(x_range or (min(xs), max(xs))), _widened(y_range or (min(0.0, *ys), max(ys))))
    parts: list[Html] = [*frame.axes(x_name, y_name)]
    if diagonal:
        (x0, x1), (y0, y1) = frame.x_range, frame.y_range
        parts.append(
            element(
                "path", d=f"M{frame.x(x0):g} {frame.y(y0):g}L{frame.x(x1):g} {frame.y(y1):g}", class_="mark"
            )
        )
    for mark in marks:
        parts += frame.mark(mark)
    for index, item in enumerate(shown):
        color = f"c{min(index, NUM_COLORS - 1)}"
        points = [(frame.x(x), frame.y(y)) for x, y in item.points]
        if len(points) == 1:
            parts.append(element("circle", cx=points[0][0], cy=points[0][1], r=3, class_=color))
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        parts.append(element("path", d=path, class_=f"l {color}"))
    names = _key([item.name for item in shown]) if len(shown) > 1 or shown[0].name else ""
    return _figure(title, _svg(parts, _lines_in_words(shown, x_name, y_name)), names)


def histogram(
    title: str,
    edges: Sequence[float],
    counts: Sequence[float],
    *,
    x_name: str,
    y_name: str,
    names: Sequence[str] = (),
    every: int = 1,
    marks: Sequence[Mark] = (),
) -> Html:
    """A figure of counts between ``edges``, one more than there are counts, drawn equally wide.

    ``names``, one for each bin, replace the edges' numbers below them. At most ``every`` one of these is
    written, fewer if there is no room. The x of marks counts bins.
    """
    frame = _Frame((0, max(1, len(counts))), _widened((0, max(counts, default=0))))
    labels = [(i + 0.5, name) for i, name in enumerate(names)] or [
        (i, tick_text(edge)) for i, edge in enumerate(edges)
    ]
    room = (_WIDTH - _LEFT - _RIGHT) / 7.5  # characters
    longest = max((len(text) for _, text in labels[::every]), default=1)
    every *= math.ceil(len(labels[::every]) * (longest + 0.5) / room) or 1
    parts: list[Html] = [*frame.axes(x_name, y_name, x_labels=labels[::every])]
    for i, count in enumerate(counts):
        left, right = frame.x(i), frame.x(i + 1)
        top = frame.y(count)
        between = names[i] if names else f"{edges[i]:.3g} to {edges[i + 1]:.3g}"
        parts.append(
            element(
                "rect",
                element("title", f"{between}: {count:,g}"),
                x=left + 1,
                y=top,
                width=max(right - left - 2, 0.5),
                height=max(frame.y(0) - top, 0.0),
                class_="c0",
            )
        )
    for mark in marks:
        parts += frame.mark(mark)
    total = sum(counts)
    words = f"{y_name} by {x_name}: {total:,g} in all"
    if total:
        most = max(range(len(counts)), key=lambda i: counts[i])
        where = names[most] if names else f"{edges[most]:.3g} to {edges[most + 1]:.3g}"
        words += f", most ({counts[most]:,g}) at {where}"
    return _figure(title, _svg(parts, words))


def bar_chart(
    title: str,
    rows: Sequence[tuple[str, float, str]],
) -> Html:
    """A figure of horizontal bars: a name, a value from 0 and the text at the bar's end for each."""
    if not rows:
        return _figure(title, element("p", "No values.", class_="soft"))
    limit = max(*(value for _, value, _ in rows), 1e-12)
    indent = 16.0 + 6.6 * max(len(name) for name, _, _ in rows)
    indent = min(indent, 170.0)
    space = _WIDTH - indent - 8 - 6.6 * max(len(text) for _, _, text in rows)
    parts = []
    for i, (name, value, text) in enumerate(rows):
        y = 26.0 * i + 4
        width = space * min(max(value, 0), limit) / limit
        shown = name if len(name) <= 24 else f"{name[:23]}\u2026"
        parts += [
            element("text", shown, x=indent - 8, y=y + 13, text_anchor="end", class_="ink"),
            element("rect", x=indent, y=y, width=max(width, 1.0), height=18, rx=2, class_="c0"),
            element("text", text, x=indent + max(width, 1.0) + 6, y=y + 13),
        ]
    words = "; ".join(f"{name} {text}" for name, _, text in rows)
    return _figure(title, _svg(parts, words, height=26.0 * len(rows) + 4))


def small_bar(share: float) -> Html:
    """A bar for a table's cell, which has the number, too: so it is hidden from screen readers."""
    width = 60.0
    track = element("rect", x=0, y=0, width=width, height=8, rx=2, class_="track")
    bar = element("rect", x=0, y=0, width=width * min(max(share, 0.0), 1.0), height=8, rx=2, class_="c0")
    return element("svg", track, bar, viewBox=f"0 0 {width:g} 8", width=width, height=8, aria_hidden="true")


class _Frame:
    """The coordinates of a chart: from values to pixels."""

    def __init__(self, x_range: tuple[float, float], y_range: tuple[float, float]) -> None:
        self.x_range, self.y_range = x_range, y_range

    def x(self, value: float) -> float:
        low, high = self.x_range
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _BOTTOM - _TOP)

    def axes(
        self, x_name: str, y_name: str, *, x_labels: Sequence[tuple[float, str]] | None = None
    ) -> list[Html]:
        bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
        parts = []
        for value in ticks(*self.y_range):
            y = self.y(value)
            parts += [
                element("path", d=f"M{_LEFT:g} {y:.1f}H{right:g}", class_="grid"),
                element("text", tick_text(value), x=_LEFT - 6, y=y + 4, text_anchor="end"),
            ]
        if x_labels is None:
            x_labels = [(value, tick_text(value)) for value in ticks(*self.x_range)]
        parts += [
            element("text", text, x=self.x(value), y=bottom + 16, text_anchor="middle")
            for value, text in x_labels
        ]
        middle = (_TOP + bottom) / 2
        return [
            *parts,
            element("path", d=f"M{_LEFT:g} {bottom:g}H{right:g}", class_="axis"),
            element("text", x_name, x=(_LEFT + right) / 2, y=_HEIGHT - 6, text_anchor="middle"),
            element(
                "text",
                y_name,
                x=9,
                y=middle,
                text_anchor="middle",
                transform=f"rotate(-90 9 {middle:g})",
            ),
        ]

    def mark(self, mark: Mark) -> list[Html]:
        x = self.x(mark.x)
        on_left = mark.x > sum(self.x_range) / 2
        return [
            element("path", d=f"M{x:.1f} {_TOP:g}V{_HEIGHT - _BOTTOM:g}", class_="mark"),
            element(
                "text",
                mark.text,
                x=x + (-5 if on_left else 5),
                y=_TOP + 10,
                text_anchor="end" if on_left else "start",
            ),
        ]


def _svg(parts: Sequence[Html], words: str, *, height: float = _HEIGHT) -> Html:
    return element(
        "svg",
        parts,
        viewBox=f"0 0 {_WIDTH:g} {height:g}",
        width=_WIDTH,
        height=height,
        role="img",
        aria_label=words,
    )


def _figure(title: str, *children: Html | str) -> Html:
    return element("figure", element("figcaption", element("b", title)), *children)


def _key(names: Sequence[str]) -> Html:
    items = []
    for index, name in enumerate(names):
        color = f"l c{min(index, NUM_COLORS - 1)}"
        line = element("path", d="M0 5H16", class_=color)
        swatch = element("svg", line, viewBox="0 0 16 10", width=16, height=10, aria_hidden="true")
        items.append(element("li", swatch, name))
    return element("ul", items, class_="key")


def _lines_in_words(series: Sequence[Series], x_name: str, y_name: str) -> str:
    said = []
    for item in series:
        (x0, y0), (x1, y1) = item.points[0], item.points[-1]
        top_x, top = max(item.points, key=lambda point: point[1])
        begin = f"{item.name}: " if item.name else ""
        said.append(
            f"{begin}from {y0:.4g} at {x0:.4g} to {y1:.4g} at {x1:.4g}, at most {top:.4g} at {top_x:.4g}"
        )
    return f"{y_name} over {x_name}. " + "; ".join(said)


def _widened(bounds: tuple[float, float]) -> tuple[float, float]:
    """A range that is not empty and ends at a tick."""
    low, high = bounds
    if not high > low:
        return (low, low + 1) if low >= 0 else (low - 1, low)
    step = next((b - a for a, b in pairwise(ticks(low, high))), high - low)
    return low, high if abs(high / step - round(high / step)) < 1e-9 else math.ceil(high / step) * step
