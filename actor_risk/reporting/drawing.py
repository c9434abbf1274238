"""What pictures are made of: round ticks, scales, lines of an SVG whose colours the page's style sheet gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Scale = Callable[[float], float]


def nice_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """About `wanted` round numbers that cover `low` to `high`."""
    rough = (high - low) / wanted or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def span(values: Sequence[float]) -> tuple[float, float]:
    """The lowest and the highest, apart from each other even for one value or none."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    if low == high:
        return low - (abs(low) * 0.1 or 1.0), high + (abs(high) * 0.1 or 1.0)
    return low, high


def scale(low: float, high: float, at_low: float, at_high: float) -> Scale:
    """From a value to its place."""
    return lambda value: at_low + (value - low) / (high - low) * (at_high - at_low)


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    """A line of a class."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
