"""Small charts as inline SVG: no script, no font, colours from the page's style sheet, so light and dark both work."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

Points = Sequence[tuple[float, float]]


@dataclass(slots=True)
class Plot:
    """One chart: data in the ranges `x` and `y`, drawn in a box of `width` by `height` units."""

    width: int
    height: int
    x: tuple[float, float]
    y: tuple[float, float]
    title: str
    left: int = 46
    right: int = 14
    top: int = 12
    bottom: int = 40
    parts: list[str] = field(default_factory=list)

    def at_x(self, value: float) -> float:
        low, high = self.x
        return self.left + (value - low) / ((high - low) or 1.0) * (self.width - self.left - self.right)

    def at_y(self, value: float) -> float:
        low, high = self.y
        return (
            self.height - self.bottom - (value - low) / ((high - low) or 1.0) * (self.height - self.top - self.bottom)
        )

    def axes(
        self,
        x_label: str,
        y_label: str,
        x_ticks: Sequence[float] = (),
        y_ticks: Sequence[float] = (),
        x_told: Callable[[float], str] = lambda value: short(value),
        y_told: Callable[[float], str] = lambda value: short(value),
    ) -> None:
        """Grid, ticks and labels; call it first, since what comes later is drawn above."""
        bottom, right = self.height - self.bottom, self.width - self.right
        for tick in y_ticks:
            y = self.at_y(tick)
            self._line("grid", self.left, y, right, y)
            self.text(self.left - 7, y + 3.5, y_told(tick), "tick end")
        for tick in x_ticks:
            x = self.at_x(tick)
            self._line("grid", x, self.top, x, bottom)
            self.text(x, bottom + 15, x_told(tick), "tick mid")
        self._line("axis", self.left, bottom, right, bottom)
        self.text((self.left + right) / 2, self.height - 5, x_label, "label mid")
        middle = (self.top + bottom) / 2
        self.parts.append(
            f'<text class="label mid" transform="translate(11 {middle:.1f}) rotate(-90)">{escape(y_label)}</text>'
        )

    def curve(self, points: Points, kind: str) -> None:
        if points:
            self.parts.append(f'<polyline class="{kind}" points="{self._joined(points)}"/>')

    def area(self, points: Points, kind: str) -> None:
        """Between the points and the bottom."""
        if points:
            low = self.y[0]
            closed = [(points[0][0], low), *points, (points[-1][0], low)]
            self.parts.append(f'<polygon class="{kind}" points="{self._joined(closed)}"/>')

    def band(self, low: Points, high: Points, kind: str) -> None:
        if low:
            self.parts.append(f'<polygon class="{kind}" points="{self._joined([*low, *reversed(high)])}"/>')

    def dot(self, x: float, y: float, kind: str, told: str, radius: float = 4.0) -> None:
        self.parts.append(
            f'<circle class="{kind}" cx="{self.at_x(x):.1f}" cy="{self.at_y(y):.1f}" r="{radius:.1f}">'
            f"<title>{escape(told)}</title></circle>"
        )

    def bar(self, x0: float, x1: float, y0: float, y1: float, kind: str, told: str) -> None:
        left, right = self.at_x(x0), self.at_x(x1)
        top, bottom = sorted((self.at_y(y0), self.at_y(y1)))
        self.parts.append(
            f'<rect class="{kind}" x="{left:.1f}" y="{top:.1f}" width="{max(right - left, 0.5):.1f}" '
            f'height="{bottom - top:.1f}"><title>{escape(told)}</title></rect>'
        )

    def segment(self, x0: float, y0: float, x1: float, y1: float, kind: str) -> None:
        self._line(kind, self.at_x(x0), self.at_y(y0), self.at_x(x1), self.at_y(y1))

    def dots(self, points: Points, kind: str, style: str = "") -> None:
        """Many points of one look, as one path, in units of the box."""
        if points:
            path = "".join(f"M{x:.1f},{y:.1f}h0" for x, y in points)
            self.parts.append(f'<path class="{kind}"{style and f" style={chr(34)}{style}{chr(34)}"} d="{path}"/>')

    def text(self, x: float, y: float, text: str, kind: str) -> None:
        """In units of the box."""
        self.parts.append(f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>')

    def svg(self) -> str:
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(self.title, quote=True)}">'
            + "".join(self.parts)
            + "</svg>"
        )

    def _line(self, kind: str, x0: float, y0: float, x1: float, y1: float) -> None:
        self.parts.append(f'<line class="{kind}" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>')

    def _joined(self, points: Points) -> str:
        return " ".join(f"{self.at_x(x):.1f},{self.at_y(y):.1f}" for x, y in points)


def round_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers from `low` to `high`."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A number for an axis."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    if abs(value) >= 1e4:
        return f"{value / 1e3:g}k"
    return f"{value:g}"
