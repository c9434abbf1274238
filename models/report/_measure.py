"""From a published model and its rows to every number of the report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    log_loss,
    precision_recall_curve,
    roc_curve,
)

from models._arrays import Bools, Floats
from models.bundle import Bundle
from models.errors import TrainingError
from models.report._figures import (
    Confusion,
    Curve,
    Explanations,
    FeatureRow,
    Importance,
    Period,
    Quality,
    ReliabilityBin,
    Report,
    ScoreBin,
    Slice,
    SpanRow,
    Swarm,
)
from models.report._notes import notes_of
from models.report._statistics import roc_auc, share_of, stability_index
from models.training_set import TrainingSet

_DAY_MS = 86_400_000
_PERIODS_MS = tuple(hours * 3_600_000 for hours in (24, 12, 6, 3, 1))
_PERIODS_MIN, _PERIODS_MAX = 6, 90
_CURVE_POINTS_MAX = 300
_RELIABILITY_BINS, _RELIABILITY_ROWS_MIN, _SCORE_BINS = 10, 25, 40
_EXPLAINED_ROWS, _SWARMS = 400, 14
_VALUES_MAX, _SLICE_ROWS_MIN = 12, 30


@dataclass(frozen=True, slots=True)
class _Rows:
    """The training set as the report sees it: what the model reads, its scores, and the spans."""

    given: TrainingSet
    matrix: Floats
    scores: Floats
    fit: Bools
    tune: Bools
    test: Bools

    @property
    def labels(self) -> NDArray[np.int8]:
        return self.given.labels


def measure_report(bundle: Bundle, training_set: TrainingSet) -> Report:
    """All figures of a published model, scored and explained by its bundle.

    Raises TrainingError for other rows than those of the bundle's manifest.
    """
    manifest = bundle.manifest
    spans = manifest.training
    if spans is None or spans.fingerprint != training_set.fingerprint():
        raise TrainingError("these are not the rows that this version was trained on: build the training set again")
    times = training_set.times_ms
    matrix = bundle.vector(training_set.matrix)
    tune = (times >= spans.tune_ms) & (times < spans.test_ms)
    rows = _Rows(training_set, matrix, bundle.score(matrix).score, times < spans.tune_ms, tune, times >= spans.test_ms)
    labels, scores = rows.labels[rows.test], rows.scores[rows.test]
    reliability = _reliability(labels, scores)
    explanations = _explanations(bundle, rows)
    report = Report(
        model=manifest.model_name,
        version=bundle.version,
        label=manifest.label,
        service=manifest.service.name,
        trainer=str(manifest.settings.get("trainer", "")),
        calibration=manifest.calibration,
        notes=[],
        quality=_quality(labels, scores, reliability),
        spans=_spans(bundle, rows),
        roc=_roc(labels, scores),
        pr=_pr(labels, scores),
        reliability=reliability,
        scores=_histogram(labels, scores),
        thresholds=_confusions(bundle, rows),
        explanations=explanations,
        stability=_stability(bundle, rows),
        slices=_slices(bundle, rows),
        features=_features(bundle, rows, {found.ref: found.mean_size for found in explanations.importances}),
        settings=manifest.settings,
        libraries=manifest.libraries,
        data_fingerprint=spans.fingerprint,
        code_fingerprint=manifest.code_fingerprint,
    )
    report.notes.extend(notes_of(report))
    return report


def _quality(labels: NDArray[np.int8], scores: Floats, reliability: list[ReliabilityBin]) -> Quality:
    gaps = [part.rows * abs(part.mean_score - (part.rate.value or 0.0)) for part in reliability]
    return Quality(
        rows=int(labels.size),
        positives=int(labels.sum()),
        base_rate=share_of(int(labels.sum()), int(labels.size)),
        mean_score=float(scores.mean()),
        roc_auc=roc_auc(labels, scores),
        pr_auc=float(average_precision_score(labels, scores)),
        log_loss=float(log_loss(labels, scores, labels=[0, 1])),
        brier=float(brier_score_loss(labels, scores)),
        calibration_error=sum(gaps) / labels.size,
    )


def _spans(bundle: Bundle, rows: _Rows) -> list[SpanRow]:
    spans = bundle.manifest.training
    assert spans is not None
    bounds = (
        ("fit", spans.start_ms, spans.tune_ms),
        ("tune", spans.tune_ms, spans.test_ms),
        ("test", spans.test_ms, spans.end_ms),
    )
    found = []
    for (name, start, end), part in zip(bounds, (rows.fit, rows.tune, rows.test), strict=True):
        count, positives = int(part.sum()), int(rows.labels[part].sum())
        found.append(SpanRow(name, start, end, count, positives, positives / count, float(rows.scores[part].mean())))
    return found


def _roc(labels: NDArray[np.int8], scores: Floats) -> Curve:
    x, y, thresholds = roc_curve(labels, scores)
    thresholds[0] = 1.0  # sklearn begins above every score, at infinity
    return _thinned(x, y, thresholds)


def _pr(labels: NDArray[np.int8], scores: Floats) -> Curve:
    precision, recall, thresholds = precision_recall_curve(labels, scores)
    return _thinned(recall[:-1][::-1], precision[:-1][::-1], thresholds[::-1])


def _thinned(x: Floats, y: Floats, thresholds: Floats) -> Curve:
    """At most _CURVE_POINTS_MAX points, evenly spaced along the curve."""
    length = np.append(0.0, np.cumsum(np.hypot(np.diff(x), np.diff(y))))
    places = np.searchsorted(length, np.linspace(0.0, length[-1], _CURVE_POINTS_MAX))
    kept = np.unique(np.append(places.clip(0, x.size - 1), [0, x.size - 1]))
    return Curve(x[kept].tolist(), y[kept].tolist(), thresholds[kept].tolist())


def _reliability(labels: NDArray[np.int8], scores: Floats) -> list[ReliabilityBin]:
    """Between the tenths of the rows and the tenths of the score, so that rare scores show too; a bin of few rows is
    joined with the next one. Rows of one score stay together."""
    tenths = np.arange(1, _RELIABILITY_BINS) / _RELIABILITY_BINS
    edges = np.unique(np.append(np.quantile(scores, tenths), tenths))
    place = np.searchsorted(edges, scores, side="left")
    counts = np.bincount(place, minlength=edges.size + 1)
    bins, waiting = np.zeros(edges.size + 1, np.int64), 0
    for number in range(edges.size):
        waiting += int(counts[number])
        is_full = waiting >= _RELIABILITY_ROWS_MIN and counts[number + 1 :].sum() >= _RELIABILITY_ROWS_MIN
        bins[number + 1] = bins[number] + is_full
        waiting = 0 if is_full else waiting
    found = []
    for number in np.unique(bins[place]):
        part = bins[place] == number
        count, positives = int(part.sum()), int(labels[part].sum())
        low, high, mean = float(scores[part].min()), float(scores[part].max()), float(scores[part].mean())
        found.append(ReliabilityBin(low, high, count, positives, mean, share_of(positives, count)))
    return found


def _histogram(labels: NDArray[np.int8], scores: Floats) -> list[ScoreBin]:
    edges = np.linspace(0.0, 1.0, _SCORE_BINS + 1)
    negatives, positives = (np.histogram(scores[labels == label], edges)[0] for label in (0, 1))
    return [
        ScoreBin(float(low), float(high), int(n), int(p))
        for low, high, n, p in zip(edges, edges[1:], negatives, positives, strict=False)
    ]


def _confusions(bundle: Bundle, rows: _Rows) -> list[Confusion]:
    spans, thresholds = _spans(bundle, rows), bundle.manifest.thresholds
    return [
        _confusion(name, threshold, span, rows.labels[part], rows.scores[part], rows.given.share)
        for name, threshold in (("review", thresholds.review), ("block", thresholds.block))
        for span, part in ((spans[1], rows.tune), (spans[2], rows.test))
    ]


def _confusion(
    name: str, threshold: float, span: SpanRow, labels: NDArray[np.int8], scores: Floats, share: float
) -> Confusion:
    flagged = scores >= threshold
    count, right, positives = int(flagged.sum()), int(labels[flagged].sum()), int(labels.sum())
    days = max((span.end_ms - span.start_ms) / _DAY_MS, 1e-9)
    return Confusion(
        threshold_name=name,
        span=span.name,
        threshold=threshold,
        true_positives=right,
        false_positives=count - right,
        false_negatives=positives - right,
        true_negatives=int(labels.size) - positives - count + right,
        precision=share_of(right, count),
        recall=share_of(right, positives),
        per_day=count / share / days,
    )


def _explanations(bundle: Bundle, rows: _Rows) -> Explanations:
    test = np.flatnonzero(rows.test)
    chosen = test[np.unique(np.linspace(0, test.size - 1, _EXPLAINED_ROWS).astype(np.int64))]
    explained = bundle.explain(rows.matrix[chosen])
    sizes = np.abs(explained.attributions).mean(axis=0)
    refs = rows.given.refs
    order = np.argsort(-sizes, kind="stable")
    total = float(sizes.sum()) or 1.0
    return Explanations(
        rows=len(chosen),
        base_value=explained.base_value,
        output_space=explained.output_space,
        reference=explained.reference,
        method=bundle.manifest.explanation.method,
        importances=[Importance(refs[i], float(sizes[i]), float(sizes[i]) / total) for i in order],
        swarms=[
            Swarm(refs[i], explained.attributions[:, i].tolist(), _ranks(rows.matrix[chosen, i]))
            for i in order[:_SWARMS]
        ],
    )


def _ranks(values: Floats) -> list[float | None]:
    """0 for the lowest value to 1 for the highest, equal values alike; one value alone is in the middle."""
    known = np.unique(values[~np.isnan(values)])
    places = np.searchsorted(known, values) / max(known.size - 1, 1) if known.size > 1 else np.full(values.size, 0.5)
    return [None if np.isnan(value) else float(place) for value, place in zip(values, places, strict=True)]


def _stability(bundle: Bundle, rows: _Rows) -> list[Period]:
    test = _spans(bundle, rows)[2]
    width = _period_ms(test.start_ms, test.end_ms)
    first = test.start_ms // width * width
    return [
        _period(bundle, rows, start, start + width)
        for start in range(first, test.end_ms + 1, width)
        if np.any(rows.test & (rows.given.times_ms >= start) & (rows.given.times_ms < start + width))
    ]


def _period_ms(start_ms: int, end_ms: int) -> int:
    """A day, or the longest part of one that makes enough periods; many days together when there are too many."""
    span = end_ms - start_ms
    width = next((width for width in _PERIODS_MS if span // width >= _PERIODS_MIN), _PERIODS_MS[-1])
    return width * (1 + span // (width * _PERIODS_MAX))


def _period(bundle: Bundle, rows: _Rows, start: int, end: int) -> Period:
    part = rows.test & (rows.given.times_ms >= start) & (rows.given.times_ms < end)
    labels, scores, thresholds = rows.labels[part], rows.scores[part], bundle.manifest.thresholds
    count, positives = int(labels.size), int(labels.sum())
    return Period(
        start_ms=start,
        end_ms=end,
        rows=count,
        positives=positives,
        base_rate=share_of(positives, count),
        mean_score=float(scores.mean()),
        roc_auc=roc_auc(labels, scores),
        pr_auc=float(average_precision_score(labels, scores)) if 0 < positives < count else None,
        psi=stability_index(rows.scores[rows.tune], scores),
        review=int((scores >= thresholds.review).sum()),
        block=int((scores >= thresholds.block).sum()),
    )


def _slices(bundle: Bundle, rows: _Rows) -> list[Slice]:
    found = []
    for group, values in sorted(_grouped(rows).items()):
        for value in sorted(set(values[rows.test].tolist())):
            part = rows.test & (values == value)
            if part.sum() >= _SLICE_ROWS_MIN:
                found.append(_slice(bundle, group, value, rows.labels[part], rows.scores[part]))
    return found


def _grouped(rows: _Rows) -> dict[str, NDArray[np.object_]]:
    """The groups of few values as they are; of a group of many, such as the ids of actors, whether the fit span has the
    same one; and for each feature view with missing rows, whether anything was known."""
    found = {}
    for name, values in rows.given.groups.items():
        if len(set(values.tolist())) <= _VALUES_MAX:
            found[name] = np.where(values == "", "(missing)", values)
        else:
            seen = np.isin(values.astype(str), np.unique(values[rows.fit].astype(str)))
            found[name] = np.where(seen, "seen before", "new").astype(object)
    views = [ref.partition(":")[0] for ref in rows.given.refs]
    for view in sorted(set(views)):
        columns = [place for place, name in enumerate(views) if name == view]
        unknown = np.asarray(np.isnan(rows.given.matrix[:, columns]).all(axis=1), np.bool_)
        if unknown[rows.test].any():
            found[f"view {view}"] = np.where(unknown, "nothing known", "known").astype(object)
    return found


def _slice(bundle: Bundle, group: str, value: str, labels: NDArray[np.int8], scores: Floats) -> Slice:
    flagged = scores >= bundle.manifest.thresholds.review
    count, positives, right = int(labels.size), int(labels.sum()), int(labels[flagged].sum())
    return Slice(
        group=group,
        value=value,
        rows=count,
        positives=positives,
        base_rate=share_of(positives, count),
        mean_score=float(scores.mean()),
        roc_auc=roc_auc(labels, scores),
        review_precision=share_of(right, int(flagged.sum())),
        review_recall=share_of(right, positives),
    )


def _features(bundle: Bundle, rows: _Rows, importance: dict[str, float]) -> list[FeatureRow]:
    """By importance, as the model reads them; missing is what was missing before replacements."""
    found = []
    for place, feature in enumerate(bundle.manifest.features):
        given, read = rows.given.matrix[:, place], rows.matrix[:, place]
        known = read[rows.fit][~np.isnan(read[rows.fit])]
        low, median, high = np.quantile(known, [0.05, 0.5, 0.95]).tolist() if known.size else (None, None, None)
        found.append(
            FeatureRow(
                ref=feature.ref,
                description=feature.description,
                missing_fit=float(np.isnan(given[rows.fit]).mean()),
                missing_test=float(np.isnan(given[rows.test]).mean()),
                low=low,
                median=median,
                high=high,
                psi=stability_index(read[rows.fit], read[rows.test]) or 0.0,
                importance=importance[feature.ref],
            )
        )
    return sorted(found, key=lambda row: -row.importance)
