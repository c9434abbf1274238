"""Pictures of one feature's comparisons, as inline SVG whose colours the page's style sheet gives."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

from actor_risk.audit.report import Outcome, Point
from actor_risk.reporting.drawing import line, nice_ticks, scale, span
from actor_risk.reporting.words import exact, moment, number

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 14, 46
RAIL = 13
"""How far from the axes' inside a point is drawn that has no value on one side."""

SECOND_MS = 1_000
STEPS_MS = tuple(
    count * unit
    for unit, counts in (
        (1, (1, 10, 100)),
        (SECOND_MS, (1, 5, 15, 30)),
        (60 * SECOND_MS, (1, 5, 15, 30)),
        (3_600 * SECOND_MS, (1, 3, 6, 12)),
        (86_400 * SECOND_MS, (1, 2, 7, 14, 30)),
    )
    for count in counts
)

_ORDER: tuple[Outcome, ...] = ("equal", "late", "only_online", "only_offline", "mismatched")


def scatter(points: Sequence[Point]) -> str:
    """What was served (up) over what history says (across): equal values lie on the line.

    A point with one value only is drawn outside of the axes, beside the value that it has.
    """
    values = [value for point in points for value in (point.online, point.offline) if value is not None]
    low, high = span(values)
    ticks = nice_ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    x, y = scale(low, high, LEFT + RAIL * 2, WIDTH - RIGHT), scale(low, high, HEIGHT - BOTTOM - RAIL * 2, TOP)
    parts = [line("diagonal", x(low), y(low), x(high), y(high))]
    parts += [_across(y(tick), number(tick)) for tick in ticks]
    parts += [_upright(x(tick), number(tick)) for tick in ticks]
    for point in _in_order(points):
        across = LEFT + RAIL * 0.8 if point.offline is None else x(point.offline)
        up = HEIGHT - BOTTOM - RAIL * 0.8 if point.online is None else y(point.online)
        parts.append(_dot(point, across, up))
    return _svg(parts, "recomputed from history", "served", "Served over recomputed values")


def over_time(points: Sequence[Point]) -> str:
    """Served minus recomputed value (up) over the as-of time (across); one value only: at the lower edge."""
    gaps = [point.online - point.offline for point in points if point.online is not None and point.offline is not None]
    low, high = span([0.0, *gaps])
    ticks = nice_ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    times = [point.as_of_ms for point in points]
    begin, end = min(times), max(max(times), min(times) + 1)
    x, y = scale(begin, end, LEFT + 8, WIDTH - RIGHT - 8), scale(low, high, HEIGHT - BOTTOM - RAIL * 2, TOP)
    parts = [_across(y(tick), number(tick)) for tick in ticks]
    parts.append(line("diagonal", LEFT, y(0), WIDTH - RIGHT, y(0)))
    at, labels = time_ticks(begin, end)
    parts += [_upright(x(time_ms), label) for time_ms, label in zip(at, labels, strict=True)]
    for point in _in_order(points):
        one_sided = point.online is None or point.offline is None
        up = HEIGHT - BOTTOM - RAIL * 0.8 if one_sided else y((point.online or 0.0) - (point.offline or 0.0))
        parts.append(_dot(point, x(point.as_of_ms), up))
    return _svg(parts, "as-of time, UTC", "served − recomputed", "Difference over time")


def time_ticks(begin_ms: int, end_ms: int, wanted: int = 4) -> tuple[list[int], list[str]]:
    """At most about `wanted` round moments within the span, and how they are called."""
    step = next((step for step in STEPS_MS if (end_ms - begin_ms) / step <= wanted), STEPS_MS[-1])
    times = list(range(-(-begin_ms // step) * step, end_ms + 1, step)) or [begin_ms]
    form = "%d %b" if step >= 86_400_000 else "%d %b %H:%M" if end_ms - begin_ms > 86_400_000 else "%H:%M"
    if step < 60_000:
        form = "%H:%M:%S"
    return times, [datetime.fromtimestamp(time_ms / 1000, UTC).strftime(form) for time_ms in times]


def _in_order(points: Sequence[Point]) -> list[Point]:
    """What matters most is drawn last, over the rest."""
    return sorted(points, key=lambda point: _ORDER.index(point.outcome))


def _dot(point: Point, x: float, y: float) -> str:
    values = f"served {exact(point.online)}, recomputed {exact(point.offline)}"
    told = escape(f"{moment(point.as_of_ms)}: {values} ({point.outcome.replace('_', ' ')})")
    size = 2.2 if point.outcome == "equal" else 3.4
    return f'<circle class="{point.outcome}" cx="{x:.1f}" cy="{y:.1f}" r="{size}"><title>{told}</title></circle>'


def _across(y: float, label: str) -> str:
    text = f'<text x="{LEFT - 8}" y="{y + 3.5:.1f}" text-anchor="end">{escape(label)}</text>'
    return line("grid", LEFT, y, WIDTH - RIGHT, y) + text


def _upright(x: float, label: str) -> str:
    text = f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{escape(label)}</text>'
    return line("grid", x, TOP, x, HEIGHT - BOTTOM) + text


def _svg(parts: Sequence[str], across: str, up: str, told: str) -> str:
    x, y = (LEFT + WIDTH - RIGHT) / 2, (HEIGHT - BOTTOM + TOP) / 2
    axis = '<text class="axis" text-anchor="middle" transform="translate'
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(told)}">{"".join(parts)}'
        f'{axis}({x} {HEIGHT - 6})">{escape(across)}</text>{axis}(13 {y}) rotate(-90)">{escape(up)}</text></svg>'
    )
