"""Every number of a report. Times are ms UTC; intervals are of 95 %; None stands for what cannot be computed."""

from __future__ import annotations

import msgspec


class Interval(msgspec.Struct, frozen=True):
    """A value and where it may well lie. All None: too few rows of one class."""

    value: float | None
    low: float | None
    high: float | None


class SpanRow(msgspec.Struct, frozen=True):
    """One of the spans fit, tune and test."""

    name: str
    start_ms: int
    end_ms: int
    rows: int
    positives: int
    base_rate: float
    mean_score: float


class Curve(msgspec.Struct, frozen=True):
    """A curve by falling threshold. ROC: false-positive rate and recall; PR: recall and precision."""

    x: list[float]
    y: list[float]
    thresholds: list[float]


class ReliabilityBin(msgspec.Struct, frozen=True):
    """Rows with scores from `low` to `high`: what was said on average, and what came."""

    low: float
    high: float
    rows: int
    positives: int
    mean_score: float
    rate: Interval


class ScoreBin(msgspec.Struct, frozen=True):
    """Rows of each class with low <= score < high; the last bin has score 1 too."""

    low: float
    high: float
    negatives: int
    positives: int


class Confusion(msgspec.Struct, frozen=True):
    """What flagging every score >= `threshold` does in a span. `per_day`: of all rows, not only of a sample."""

    threshold_name: str
    span: str
    threshold: float
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    precision: Interval
    recall: Interval
    per_day: float


class Importance(msgspec.Struct, frozen=True):
    """Mean size of a feature's attribution, and its share of the sum over all features."""

    ref: str
    mean_size: float
    share: float


class Swarm(msgspec.Struct, frozen=True):
    """Explained rows of one feature: attribution, and rank of its value among them from 0 to 1 (None: missing)."""

    ref: str
    attributions: list[float]
    ranks: list[float | None]


class Explanations(msgspec.Struct, frozen=True):
    """Attributions of a sample of the test span."""

    rows: int
    base_value: float
    output_space: str
    reference: str
    method: str
    importances: list[Importance]
    swarms: list[Swarm]


class Period(msgspec.Struct, frozen=True):
    """A part of the test span. `psi`: population stability index of its scores against those of the tune span."""

    start_ms: int
    end_ms: int
    rows: int
    positives: int
    base_rate: Interval
    mean_score: float | None
    roc_auc: Interval
    pr_auc: float | None
    psi: float | None
    review: int
    block: int


class Slice(msgspec.Struct, frozen=True):
    """The rows of the test span with one value of a group."""

    group: str
    value: str
    rows: int
    positives: int
    base_rate: Interval
    mean_score: float
    roc_auc: Interval
    review_precision: Interval
    review_recall: Interval


class FeatureRow(msgspec.Struct, frozen=True):
    """One input. `psi`: of its values (missing is one of them) in the test span against the fit span."""

    ref: str
    description: str
    missing_fit: float
    missing_test: float
    low: float | None
    median: float | None
    high: float | None
    psi: float
    importance: float


class Quality(msgspec.Struct, frozen=True):
    """Of the test span. `calibration_error`: mean gap between score and rate over the reliability bins, by rows."""

    rows: int
    positives: int
    base_rate: Interval
    mean_score: float
    roc_auc: Interval
    pr_auc: float
    log_loss: float
    brier: float
    calibration_error: float


class Report(msgspec.Struct, frozen=True):
    """Everything. `notes` is what stands out, in words."""

    model: str
    version: str
    label: str
    service: str
    trainer: str
    calibration: str
    notes: list[str]
    quality: Quality
    spans: list[SpanRow]
    roc: Curve
    pr: Curve
    reliability: list[ReliabilityBin]
    scores: list[ScoreBin]
    thresholds: list[Confusion]
    explanations: Explanations
    stability: list[Period]
    slices: list[Slice]
    features: list[FeatureRow]
    settings: dict[str, float | str | list[str] | None]
    libraries: dict[str, str]
    data_fingerprint: str
    code_fingerprint: str
