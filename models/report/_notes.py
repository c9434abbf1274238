"""What stands out in a report, in words, each with the number that makes it so."""

from __future__ import annotations

from collections.abc import Iterator

from models.report._figures import Report

_LEAK_AUC = 0.995
_CALIBRATION_RATIO = 0.2
_PSI_MAX = 0.25
_MISSING_SHIFT = 0.1
_POSITIVES_MIN = 50
_NAMED_MAX = 3


def notes_of(report: Report) -> list[str]:
    """One sentence for each thing to look at; empty when nothing stands out."""
    return [note for part in (_quality, _thresholds, _stability, _slices, _features) for note in part(report)]


def _quality(report: Report) -> Iterator[str]:
    quality = report.quality
    area = quality.roc_auc.value
    if area is not None and area > _LEAK_AUC:
        yield f"ROC AUC {area:.4f} is too good to be true: look for a feature that knows the label."
    if quality.positives < _POSITIVES_MIN:
        yield f"The test span has {quality.positives} positive rows: every figure below is uncertain."
    low, high = quality.base_rate.low or 0.0, quality.base_rate.high or 1.0
    gap = abs(quality.mean_score - (quality.base_rate.value or 0.0))
    if not low <= quality.mean_score <= high and gap > _CALIBRATION_RATIO * (quality.base_rate.value or 0.0):
        yield (
            f"The mean score {quality.mean_score:.3f} is outside of the base rate's interval {low:.3f} to {high:.3f}: "
            "a score is not a probability here; calibrate, or see whether the base rate moved."
        )


def _thresholds(report: Report) -> Iterator[str]:
    for row in report.thresholds:
        if row.span == "tune" and not row.true_positives + row.false_positives:
            yield f"No score of the tune span keeps what {row.threshold_name} promises: nobody gets this verdict."
    by_span = {row.span: row for row in report.thresholds if row.threshold_name == "review"}
    tuned, tested = by_span["tune"].precision.value, by_span["test"].precision
    if tuned is not None and tested.high is not None and tested.high < tuned:
        yield f"Precision at review fell from {tuned:.2f} in the tune span to {tested.value:.2f} in the test span."


def _stability(report: Report) -> Iterator[str]:
    drifted = [part for part in report.stability if part.psi is not None and part.psi > _PSI_MAX and part.rows >= 100]
    if drifted:
        yield (
            f"In {len(drifted)} of {len(report.stability)} periods the scores are spread unlike those of the tune span "
            f"(PSI above {_PSI_MAX})."
        )


def _slices(report: Report) -> Iterator[str]:
    whole = report.quality.roc_auc.low
    for part in report.slices:
        if whole is not None and part.roc_auc.high is not None and part.roc_auc.high < whole:
            yield (
                f"The model ranks worse for {part.group} = {part.value}: ROC AUC {part.roc_auc.value:.3f} "
                f"({part.rows:,} rows)."
            )


def _features(report: Report) -> Iterator[str]:
    shifted = [row for row in report.features if abs(row.missing_test - row.missing_fit) > _MISSING_SHIFT]
    if shifted:
        names = ", ".join(row.ref for row in shifted[:_NAMED_MAX]) + (" …" if len(shifted) > _NAMED_MAX else "")
        yield f"{len(shifted)} features are missing far more or less often in the test than in the fit span: {names}."
    empty = [row.ref for row in report.features if row.missing_fit == 1.0]
    if empty:
        names = ", ".join(empty[:_NAMED_MAX])
        yield f"{len(empty)} features had no value in the fit span, the model cannot use them: {names}."
