"""Small pictures of a feature's values, old over new, as inline SVG whose colours the page's style sheet gives."""

from __future__ import annotations

from html import escape

from actor_risk.changes.values import FeatureValues, Profile
from actor_risk.reporting.drawing import line
from actor_risk.reporting.words import number, one_line, share

WIDTH, HEIGHT = 460, 150
LEFT, RIGHT, TOP, BOTTOM = 34, 8, 6, 20
GAP = 10
"""Between the old picture and the new one below it."""


def histograms(values: FeatureValues) -> str:
    """Both versions over the same axis, to the same scale; "" where there are no counts to draw."""
    sides = (("old", values.old), ("new", values.new))
    drawn = {name: side for name, side in sides if side is not None and _drawable(side)}
    edges = next((side.edges for side in drawn.values()), ())
    if not edges or any(side.edges != edges for side in drawn.values()):
        return ""
    tallest = max(max(_shares(side)) for side in drawn.values()) or 1.0
    height = (HEIGHT - TOP - BOTTOM - GAP) / 2
    parts = []
    for place, name in enumerate(("old", "new")):
        floor = TOP + height + place * (height + GAP)
        parts.append(f'<text x="{LEFT - 6}" y="{floor - 2:.1f}" text-anchor="end">{name}</text>')
        parts.append(line("grid", LEFT, floor, WIDTH - RIGHT, floor))
        if name in drawn:
            parts += _bars(name, drawn[name], floor, height / tallest)
    parts += _labels(edges)
    told = escape(f"Values of {one_line(values.feature)}, old over new")
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{told}">{"".join(parts)}</svg>'


def _drawable(side: Profile) -> bool:
    return not side.masked and any(side.histogram) and len(side.edges) == len(side.histogram) + 1


def _shares(side: Profile) -> list[float]:
    total = sum(side.histogram)
    return [count / total for count in side.histogram]


def _bars(name: str, side: Profile, floor: float, scale: float) -> list[str]:
    """Each as wide as the next, whatever its edges: they need not be equally far apart."""
    width = (WIDTH - LEFT - RIGHT) / len(side.histogram)
    bars = []
    for place, (count, part) in enumerate(zip(side.histogram, _shares(side), strict=True)):
        if not count:
            continue
        height = max(part * scale, 1.0)
        told = f"{number(side.edges[place])} to {number(side.edges[place + 1])}: {count:,} rows, {share(part)}"
        bars.append(
            f'<rect class="{name}" x="{LEFT + place * width:.1f}" y="{floor - height:.1f}" '
            f'width="{max(width - 1, 0.5):.1f}" height="{height:.1f}"><title>{escape(told)}</title></rect>'
        )
    return bars


def _labels(edges: tuple[float, ...]) -> list[str]:
    width = (WIDTH - LEFT - RIGHT) / (len(edges) - 1)
    last = len(edges) - 1
    anchors = {0: "start", last // 2: "middle", last: "end"} if last > 1 else {0: "start", last: "end"}
    return [
        f'<text x="{LEFT + place * width:.1f}" y="{HEIGHT - 5}" text-anchor="{anchor}">'
        f"{escape(number(edges[place]))}</text>"
        for place, anchor in anchors.items()
    ]
