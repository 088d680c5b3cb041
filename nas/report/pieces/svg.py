"""The pieces that charts are drawn with: axes, ticks, labels that do not collide. Colours come from the page's style.

Everything is text made of numbers we format and of names that pass `escape`; a chart takes on the page's light or dark
scheme because it names classes, not colours.
"""

import html
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

CHAR_PX = 6.1
"""Width of a character of an 11-pixel label, on average."""


def escape(text: object) -> str:
    """Text that is safe in HTML and SVG, in attributes too."""
    return html.escape(str(text), quote=True)


def method_class(name: str) -> str:
    """The class that colours a method; unknown ones share a neutral colour."""
    return f"m-{name}" if name.isidentifier() and name.isascii() else "m-other"


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Maps values lo..hi to pixels start..stop."""

    lo: float
    hi: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        lo, hi, at = (math.log10(v) for v in (self.lo, self.hi, value)) if self.log else (self.lo, self.hi, value)
        return self.start + (at - lo) / (hi - lo) * (self.stop - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values between lo and hi."""
        found = self._decades() if self.log else []
        return found if len(found) >= 3 else self._steps(count)

    def _steps(self, count: int) -> list[float]:
        raw = (self.hi - self.lo) / count
        size = 10 ** math.floor(math.log10(raw))
        step = next(size * m for m in (1, 2, 2.5, 5, 10) if size * m >= raw * 0.999)
        first = math.ceil(self.lo / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.hi / step + 1e-9) + 1)]

    def _decades(self) -> list[float]:
        powers = range(math.floor(math.log10(self.lo)), math.ceil(math.log10(self.hi)) + 1)
        for multiples in ((1,), (1, 3), (1, 2, 5)):
            found = [m * 10.0**p for p in powers for m in multiples]
            inside = [v for v in found if self.lo * 0.999 <= v <= self.hi * 1.001]
            if len(inside) >= 3:
                return inside
        return []


def axis(values: Iterable[float], start: float, stop: float, *, log: bool = False, pad: float = 0.06) -> Axis:
    """An axis over some values with room on both ends; what is not finite, or has no logarithm, is left out."""
    usable = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
    lo, hi = (min(usable), max(usable)) if usable else (1.0, 2.0)
    if log:
        room = max(hi / lo, 1.3) ** pad
        return Axis(lo=lo / room, hi=hi * room, start=start, stop=stop, log=True)
    room = (hi - lo) * pad if hi > lo else max(abs(hi) * 0.05, 0.5)
    return Axis(lo=lo - room, hi=hi + room, start=start, stop=stop)


def wide(values: Iterable[float], ratio: float = 12.0) -> bool:
    """Whether positive values span so much that only a logarithmic axis shows them all."""
    usable = [v for v in values if math.isfinite(v)]
    return bool(usable) and min(usable) > 0 and max(usable) > ratio * min(usable)


def number(value: float) -> str:
    """A tick's label."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"


def frame(x: Axis, y: Axis, x_label: str, y_label: str, *, x_ticks: bool = True) -> list[str]:
    """Grid lines, tick labels and names of both axes."""
    left, right, bottom, top = x.start, x.stop, y.start, y.stop
    parts = []
    for value in y.ticks():
        parts.append(f'<line class="grid" x1="{left:.1f}" x2="{right:.1f}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(text(left - 8, y(value) + 3.5, number(value), "tick end"))
    parts += foot(x, bottom, x_label, ticks=x_ticks)
    parts.append(text(left - 44, top - 12, y_label, "name"))
    return parts


def foot(x: Axis, bottom: float, label: str, *, ticks: bool = True) -> list[str]:
    """The horizontal axis: its line, notches with their numbers, its name."""
    left, right, parts = x.start, x.stop, []
    if ticks:
        for value in x.ticks(6):
            parts.append(
                f'<line class="notch" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{bottom}" y2="{bottom + 4}"/>'
            )
            parts.append(text(x(value), bottom + 17, number(value), "tick middle"))
    parts.append(f'<line class="axis" x1="{left:.1f}" x2="{right:.1f}" y1="{bottom:.1f}" y2="{bottom:.1f}"/>')
    if label:
        parts.append(text(right, bottom + 34, label, "name end"))
    return parts


def text(x: float, y: float, content: object, classes: str) -> str:
    """A piece of text; the content is escaped here."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{classes}">{escape(content)}</text>'


def polyline(points: Iterable[tuple[float, float]], classes: str, *, stepped: bool = False) -> str:
    """A line through pixels; `stepped` holds each height until the next point."""
    commands = []
    previous: float | None = None
    for px, py in points:
        if stepped and previous is not None:
            commands.append(f"H{px:.1f}V{py:.1f}")
        else:
            commands.append(f"{'M' if previous is None else 'L'}{px:.1f},{py:.1f}")
        previous = py
    return f'<path class="{classes}" d="{"".join(commands)}"/>'


def svg(width: float, height: float, parts: Sequence[str], label: str, classes: str = "chart") -> str:
    """A drawing that scales with its place on the page; `label` is for those who cannot see it."""
    return (
        f'<svg class="{classes}" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">'
        + "".join(parts)
        + "</svg>"
    )


def spread(heights: Sequence[float], gap: float, lo: float, hi: float) -> list[float]:
    """Heights moved as little as need be so that they lie `gap` apart within lo..hi."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    placed = [min(max(heights[i], lo), hi) for i in order]
    for above, below in itertools.pairwise(range(len(placed))):
        placed[below] = max(placed[below], placed[above] + gap)
    if placed and placed[-1] > hi:
        placed[-1] = hi
        for i in range(len(placed) - 2, -1, -1):
            placed[i] = min(placed[i], placed[i + 1] - gap)
    result = [0.0] * len(heights)
    for i, height in zip(order, placed, strict=True):
        result[i] = height
    return result


Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def place_label(x: float, y: float, content: str, taken: list[Box], bounds: Box) -> tuple[float, float, str]:
    """Where a label beside a point hits nothing: (x, y, anchor class). Its box joins `taken`."""
    width, height = CHAR_PX * len(content), 12.0
    spots = [
        (dx, dy, anchor)
        for reach in (0.0, 12.0, 24.0)
        for dx, dy, anchor in (
            (10 + reach / 2, 4.0, "start"),
            (-10 - reach / 2, 4.0, "end"),
            (0.0, -10 - reach, "middle"),
            (0.0, 18 + reach, "middle"),
            (9.0, -8 - reach, "start"),
            (9.0, 16 + reach, "start"),
            (-9.0, -8 - reach, "end"),
            (-9.0, 16 + reach, "end"),
        )
    ]

    def box(dx: float, dy: float, anchor: str) -> Box:
        left = x + dx - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
        return left, y + dy - height + 2, left + width, y + dy + 3

    def cost(spot: tuple[float, float, str]) -> float:
        left, top, right, bottom = box(*spot)
        overlap = sum(
            max(0.0, min(right, b[2]) - max(left, b[0])) * max(0.0, min(bottom, b[3]) - max(top, b[1])) for b in taken
        )
        outside = max(0.0, bounds[0] - left) + max(0.0, right - bounds[2])
        outside += max(0.0, bounds[1] - top) + max(0.0, bottom - bounds[3])
        return overlap + 100 * outside

    best = min(spots, key=cost)
    taken.append(box(*best))
    return x + best[0], y + best[1], best[2]
