"""The charts of a report, each from its figures alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from models.report._figures import (
    Confusion,
    Curve,
    Explanations,
    Period,
    Quality,
    ReliabilityBin,
    ScoreBin,
    SpanRow,
    Swarm,
)
from models.report._svg import Plot, round_ticks

_TENTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_RANK_COLOURS = 9
_ROW_HEIGHT = 26
_SWARM_STEP = 2.6
_MOMENT_WIDTH = 100


def roc_chart(curve: Curve, thresholds: Sequence[Confusion]) -> str:
    plot = Plot(440, 380, (0, 1), (0, 1), "ROC curve")
    plot.axes("false-positive rate", "recall", _TENTHS, _TENTHS)
    plot.segment(0, 0, 1, 1, "ref")
    plot.area(list(zip(curve.x, curve.y, strict=True)), "fill1")
    plot.curve(list(zip(curve.x, curve.y, strict=True)), "line1")
    for row in _tested(thresholds):
        wrong = row.false_positives / max(row.false_positives + row.true_negatives, 1)
        plot.dot(wrong, row.recall.value or 0.0, f"mark {row.threshold_name}", _told(row), 5)
    return plot.svg()


def pr_chart(curve: Curve, quality: Quality, thresholds: Sequence[Confusion]) -> str:
    plot = Plot(440, 380, (0, 1), (0, 1), "Precision-recall curve")
    plot.axes("recall", "precision", _TENTHS, _TENTHS)
    base = quality.base_rate.value or 0.0
    plot.segment(0, base, 1, base, "ref")
    plot.text(plot.width - plot.right - 4, plot.at_y(base) - 5, f"base rate {base:.3f}", "tick end")
    plot.area(list(zip(curve.x, curve.y, strict=True)), "fill1")
    plot.curve(list(zip(curve.x, curve.y, strict=True)), "line1")
    for row in _tested(thresholds):
        if row.precision.value is not None:
            plot.dot(row.recall.value or 0.0, row.precision.value, f"mark {row.threshold_name}", _told(row), 5)
    return plot.svg()


def reliability_chart(bins: Sequence[ReliabilityBin]) -> str:
    plot = Plot(440, 380, (0, 1), (0, 1), "Reliability: mean score and observed rate by bins of the score")
    plot.axes("mean score of the bin", "observed rate", _TENTHS, _TENTHS)
    plot.segment(0, 0, 1, 1, "ref")
    plot.curve([(part.mean_score, part.rate.value or 0.0) for part in bins], "line1 thin")
    for part in bins:
        low, high = part.rate.low or 0.0, part.rate.high or 0.0
        plot.segment(part.mean_score, low, part.mean_score, high, "whisker")
        told = (
            f"scores {part.low:.3f} to {part.high:.3f}: said {part.mean_score:.3f}, came {part.rate.value:.3f} "
            f"({part.positives} of {part.rows})"
        )
        plot.dot(part.mean_score, part.rate.value or 0.0, "point1", told)
    return plot.svg()


def score_chart(bins: Sequence[ScoreBin], thresholds: Sequence[Confusion]) -> str:
    """The share of each class in each bin, as of a density: the classes are of unequal size."""
    negatives = sum(part.negatives for part in bins) or 1
    positives = sum(part.positives for part in bins) or 1
    top = max(max(part.negatives / negatives, part.positives / positives) for part in bins) ** 0.5
    plot = Plot(440, 380, (0, 1), (0, top), "Distribution of the score by class")
    ticks = [share for share in (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0) if share**0.5 <= top]
    plot.axes(
        "score",
        "share of the class (square-root scale)",
        _TENTHS,
        [share**0.5 for share in ticks],
        y_told=lambda v: f"{v * v:.0%}",
    )
    for part in bins:
        where = f"score {part.low:.3f} to {part.high:.3f}"
        for count, total, kind, name in (
            (part.negatives, negatives, "negative", "negative"),
            (part.positives, positives, "positive", "positive"),
        ):
            if count:
                plot.bar(
                    part.low,
                    part.high,
                    0,
                    (count / total) ** 0.5,
                    kind,
                    f"{where}: {count:,} {name} ({count / total:.1%})",
                )
    for row in _tested(thresholds):
        plot.segment(row.threshold, 0, row.threshold, top, f"cut {row.threshold_name}")
    return plot.svg()


def span_chart(spans: Sequence[SpanRow]) -> str:
    start, end = spans[0].start_ms, spans[-1].end_ms
    plot = Plot(920, 74, (start, end), (0, 1), "The three spans of time", left=8, right=8, top=8, bottom=26)
    told_to = 0.0
    for place, span in enumerate(spans):
        told = (
            f"{span.name}: {moment(span.start_ms)} to {moment(span.end_ms)}, {span.rows:,} rows, "
            f"base rate {span.base_rate:.4f}"
        )
        plot.bar(span.start_ms, span.end_ms, 0, 1, f"span{place}", told)
        middle = (plot.at_x(span.start_ms) + plot.at_x(span.end_ms)) / 2
        plot.text(middle, plot.at_y(0.5) + 4, span.name, "onbar mid")
        if plot.at_x(span.start_ms) - told_to > 0 and plot.at_x(end) - plot.at_x(span.start_ms) > 2 * _MOMENT_WIDTH:
            plot.text(plot.at_x(span.start_ms), plot.height - 9, moment(span.start_ms), "tick")
            told_to = plot.at_x(span.start_ms) + _MOMENT_WIDTH
    plot.text(plot.width - plot.right, plot.height - 9, moment(end), "tick end")
    return plot.svg()


def importance_chart(explained: Explanations) -> str:
    shown = explained.importances[: len(explained.swarms)]
    top = shown[0].mean_size or 1.0
    height = _ROW_HEIGHT * len(shown) + 52
    plot = Plot(440, height, (0, top), (len(shown), 0), "Mean size of attributions", left=8, top=6, bottom=46)
    plot.axes(f"mean |attribution|, {explained.output_space}", "", round_ticks(0, top, 4))
    for place, part in enumerate(shown):
        plot.bar(
            0,
            part.mean_size,
            place + 0.56,
            place + 0.92,
            "bar1",
            f"{part.ref}: {part.mean_size:.4f}, {part.share:.1%} of all",
        )
        plot.text(plot.left + 2, plot.at_y(place + 0.44), part.ref, "name")
        plot.text(
            plot.width - plot.right, plot.at_y(place + 0.44), f"{part.mean_size:.3f} · {part.share:.0%}", "tick end"
        )
    return plot.svg()


def swarm_chart(explained: Explanations) -> str:
    sizes = [abs(value) for swarm in explained.swarms for value in swarm.attributions]
    low = min(value for swarm in explained.swarms for value in swarm.attributions)
    high = max(value for swarm in explained.swarms for value in swarm.attributions)
    if not max(sizes, default=0.0):
        low, high = -1.0, 1.0
    pad = (high - low) * 0.03
    height = _ROW_HEIGHT * len(explained.swarms) + 52
    plot = Plot(
        440,
        height,
        (low - pad, high + pad),
        (len(explained.swarms), 0),
        "Attributions row by row",
        left=8,
        top=6,
        bottom=46,
    )
    plot.axes(f"attribution, {explained.output_space} (right: towards 1)", "", round_ticks(low, high, 6))
    plot.segment(0, 0, 0, len(explained.swarms), "zero")
    for place, swarm in enumerate(explained.swarms):
        plot.bar(low - pad, high + pad, place, place + 1, "row", swarm.ref)
        _swarm(plot, swarm, plot.at_y(place + 0.56))
    return plot.svg()


def _swarm(plot: Plot, swarm: Swarm, middle: float) -> None:
    """Points of one feature, moved up and down so that they do not lie on each other, one path for each colour."""
    taken: dict[int, int] = {}
    colours: dict[int, list[tuple[float, float]]] = {}
    for value, rank in sorted(zip(swarm.attributions, swarm.ranks, strict=True), key=lambda pair: pair[0]):
        x = plot.at_x(value)
        number = taken[round(x / 3.2)] = taken.get(round(x / 3.2), -1) + 1
        offset = ((number + 1) // 2) * (_SWARM_STEP if number % 2 else -_SWARM_STEP)
        y = middle + max(-_ROW_HEIGHT * 0.42, min(_ROW_HEIGHT * 0.42, offset))
        colour = -1 if rank is None else round(rank * (_RANK_COLOURS - 1))
        colours.setdefault(colour, []).append((x, y))
    for colour, points in sorted(colours.items()):
        high = round(100 * colour / (_RANK_COLOURS - 1))
        style = "" if colour < 0 else f"stroke:color-mix(in oklch, var(--high) {high}%, var(--low))"
        plot.dots(points, "bee" + (" none" if colour < 0 else ""), style)


def auc_chart(periods: Sequence[Period]) -> str:
    known = [part for part in periods if part.roc_auc.value is not None]
    lows = [part.roc_auc.low for part in known if part.roc_auc.low is not None]
    floor = max(0.0, min([0.9, *lows]) // 0.05 * 0.05)
    plot = _over_time(periods, (floor, 1.0), "ROC AUC over time", "ROC AUC", round_ticks(floor, 1.0, 5))
    points = [(_middle(part), part.roc_auc.value or 0.0) for part in known]
    plot.band(
        [(_middle(part), part.roc_auc.low or 0.0) for part in known],
        [(_middle(part), part.roc_auc.high or 0.0) for part in known],
        "band1",
    )
    plot.curve(points, "line1")
    for part, (x, y) in zip(known, points, strict=True):
        plot.dot(
            x,
            y,
            "point1",
            f"{moment(part.start_ms)}: ROC AUC {y:.4f} ({part.roc_auc.low:.3f} to {part.roc_auc.high:.3f}), "
            f"{part.rows:,} rows",
        )
    return plot.svg()


def rate_chart(periods: Sequence[Period]) -> str:
    """What was said on average and what came."""
    top = max([0.01, *(max(part.base_rate.high or 0.0, part.mean_score or 0.0) for part in periods)]) * 1.05
    plot = _over_time(periods, (0.0, top), "Mean score and base rate over time", "rate", round_ticks(0.0, top, 5))
    plot.band(
        [(_middle(part), part.base_rate.low or 0.0) for part in periods],
        [(_middle(part), part.base_rate.high or 0.0) for part in periods],
        "band2",
    )
    plot.curve([(_middle(part), part.base_rate.value or 0.0) for part in periods], "line2")
    plot.curve([(_middle(part), part.mean_score or 0.0) for part in periods], "line1")
    for part in periods:
        plot.dot(
            _middle(part),
            part.base_rate.value or 0.0,
            "point2",
            f"{moment(part.start_ms)}: base rate {part.base_rate.value:.4f}",
        )
        plot.dot(
            _middle(part),
            part.mean_score or 0.0,
            "point1",
            f"{moment(part.start_ms)}: mean score {part.mean_score:.4f}",
        )
    return plot.svg()


def moment(time_ms: int) -> str:
    """UTC, to the minute."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _over_time(
    periods: Sequence[Period], y: tuple[float, float], title: str, label: str, ticks: Sequence[float]
) -> Plot:
    start, end = periods[0].start_ms, periods[-1].end_ms
    plot = Plot(440, 280, (start, end), y, title)
    step = max(1, -(-len(periods) // 5))
    plot.axes(
        "period of the test span, UTC",
        label,
        [part.start_ms for part in periods[::step]],
        ticks,
        lambda v: moment(int(v))[5:],
    )
    return plot


def _middle(part: Period) -> float:
    return (part.start_ms + part.end_ms) / 2


def _tested(thresholds: Sequence[Confusion]) -> list[Confusion]:
    return [row for row in thresholds if row.span == "test"]


def _told(row: Confusion) -> str:
    precision = "none" if row.precision.value is None else f"{row.precision.value:.3f}"
    return f"{row.threshold_name} at {row.threshold:.4f}: precision {precision}, recall {row.recall.value:.3f}"
