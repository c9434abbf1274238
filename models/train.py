"""From labelled rows to a published bundle: fit LightGBM on the past, judge it on what came later.

    training set ── train ──► trained model ── publish_trained ──► version in the store

Needs the extra `train`; serving never imports this module.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, resources
from typing import Any

import lightgbm
import msgspec
import numpy as np

from models._arrays import Floats
from models.bundle import BundleDraft
from models.errors import TrainingError
from models.export import export_lightgbm, verify_export
from models.manifest import Feature, Metrics, ModelCard, ReasonText, Service, Thresholds, TrainingData
from models.metrics import measure, threshold_for_precision
from models.scorer import Scorer
from models.store import ModelStore
from models.training_set import Spans, TrainingSet, split_by_time

_LIBRARIES = ("lightgbm", "numpy", "onnx", "onnxruntime", "scikit-learn")


class TrainSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to train. Shares are of the time span; the last one is the test, the one before it tunes the thresholds."""

    test_share: float = 0.2
    tune_share: float = 0.1
    trees: int = 150
    leaves: int = 31
    depth: int = 6
    learning_rate: float = 0.06
    leaf_rows_min: int = 50
    l2: float = 1.0
    feature_share: float = 0.8
    seed: int = 7
    threads: int = 2
    review_precision: float = 0.5
    block_precision: float = 0.9
    flagged_min: int = 20
    background_rows: int = 100
    golden_rows: int = 32

    def __post_init__(self) -> None:
        """Raises TrainingError for settings that contradict each other."""
        if self.test_share <= 0 or self.tune_share <= 0 or self.test_share + self.tune_share >= 1:
            raise TrainingError("test_share and tune_share must be above 0 and leave time to fit: try 0.2 and 0.1")
        if not 0 < self.review_precision <= self.block_precision <= 1:
            raise TrainingError("precisions need 0 < review_precision <= block_precision <= 1")
        if min(self.trees, self.background_rows, self.golden_rows) < 1:
            raise TrainingError("trees, background_rows and golden_rows must be at least 1")


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A fitted model that is not published yet.

    onnx        the exported graph, already proven equal to `booster`
    export_gap  largest difference found in that proof
    background  float64[B, F], rows that explanations compare with, after the missing-value policy
    golden_rows float64[G, F] as they arrive
    """

    booster: Any
    onnx: bytes
    export_gap: float
    features: tuple[Feature, ...]
    label: str
    thresholds: Thresholds
    metrics: Metrics
    training: TrainingData
    calibration: str
    background: Floats
    reference: str
    golden_rows: Floats
    settings: TrainSettings
    reasons: tuple[ReasonText, ...] = ()


def train(
    training_set: TrainingSet, *, settings: TrainSettings, progress: Callable[[int, int], None] | None = None
) -> TrainedModel:
    """Fits, exports, proves the export, picks thresholds and measures; equal rows and settings give equal bytes.

    `progress` is called with (trees done, trees in all).
    Raises TrainingError when the rows cannot be split or learned from, ExportMismatchError when the graph is wrong.
    """
    spans = split_by_time(training_set, tune_share=settings.tune_share, test_share=settings.test_share)
    matrix = training_set.filled()
    booster = _fit(matrix[spans.fit], training_set.labels[spans.fit], settings, progress)
    onnx = export_lightgbm(booster)
    gap = verify_export(lambda rows: _native_margin(booster, rows), onnx, matrix, seed=settings.seed)
    scores = Scorer(onnx).score(matrix)
    thresholds = _thresholds(training_set, spans, scores.score, settings)
    metrics = measure(training_set.labels[spans.test], scores.score[spans.test], thresholds)
    background = _spread(matrix[spans.fit], scores.margin[spans.fit], settings.background_rows)
    return TrainedModel(
        booster=booster,
        onnx=onnx,
        export_gap=gap,
        features=training_set.features(),
        label=training_set.label,
        thresholds=thresholds,
        metrics=metrics,
        training=spans.data,
        calibration=_calibration(metrics),
        background=background,
        reference=f"{len(background)} rows of the fitting span, evenly spaced by margin",
        golden_rows=_golden_rows(training_set.matrix[spans.test], scores.margin[spans.test], settings.golden_rows),
        settings=settings,
        reasons=training_set.reasons,
    )


def publish_trained(
    store: ModelStore, trained: TrainedModel, *, model_name: str, service: str, service_fingerprint: str
) -> str:
    """Publishes a trained model for a feature service and returns its version. No alias moves.

    Raises BundleError, UnsupportedModelError or ExportMismatchError; then nothing was published.
    """
    verify_export(lambda rows: _native_margin(trained.booster, rows), trained.onnx, trained.background)
    card = ModelCard(
        model_name=model_name,
        label=trained.label,
        service=Service(name=service, fingerprint=service_fingerprint),
        features=trained.features,
        reasons=trained.reasons,
        thresholds=trained.thresholds,
        calibration=trained.calibration,
        training=trained.training,
        metrics=trained.metrics,
        settings=msgspec.to_builtins(trained.settings),
        code_fingerprint=code_fingerprint(),
        libraries={name: metadata.version(name) for name in _LIBRARIES},
    )
    return store.publish(BundleDraft(card, trained.onnx, trained.background, trained.reference, trained.golden_rows))


def code_fingerprint() -> str:
    """SHA-256 over the sources of this package, in order of their names."""
    digest = hashlib.sha256()
    for package in ("models", "models.explain"):
        for file in sorted(resources.files(package).iterdir(), key=lambda path: path.name):
            if file.name.endswith(".py"):
                digest.update(f"{package}/{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _fit(
    matrix: Floats, labels: Any, settings: TrainSettings, progress: Callable[[int, int], None] | None
) -> lightgbm.Booster:
    parameters = {
        "objective": "binary",
        "num_leaves": settings.leaves,
        "max_depth": settings.depth,
        "learning_rate": settings.learning_rate,
        "min_data_in_leaf": settings.leaf_rows_min,
        "lambda_l2": settings.l2,
        "feature_fraction": settings.feature_share,
        "seed": settings.seed,
        "num_threads": settings.threads,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    callbacks = [] if progress is None else [lambda step: progress(step.iteration + 1, settings.trees)]
    data = lightgbm.Dataset(matrix, labels, params={"verbosity": -1})
    return lightgbm.train(parameters, data, num_boost_round=settings.trees, callbacks=callbacks)


def _native_margin(booster: Any, rows: Floats) -> Floats:
    return np.asarray(booster.predict(rows, raw_score=True), np.float64)


def _thresholds(rows: TrainingSet, spans: Spans, scores: Floats, settings: TrainSettings) -> Thresholds:
    labels, tuned = rows.labels[spans.tune], scores[spans.tune]
    review = threshold_for_precision(labels, tuned, settings.review_precision, settings.flagged_min)
    block = threshold_for_precision(labels, tuned, settings.block_precision, settings.flagged_min)
    return Thresholds(
        review=review,
        block=max(review, block),
        review_precision=settings.review_precision,
        block_precision=settings.block_precision,
    )


def _calibration(metrics: Metrics) -> str:
    return (
        f"as fitted by log loss, no later calibration; on the test span the mean score is {metrics.mean_score:.4f} "
        f"and the base rate {metrics.base_rate:.4f}"
    )


def _spread(matrix: Floats, margins: Floats, count: int) -> Floats:
    """`count` rows (or all, when fewer) at evenly spaced ranks of the margin: their mean is close to that of all."""
    order = np.argsort(margins, kind="stable")
    ranks = (np.arange(min(count, order.size)) + 0.5) / min(count, order.size) * order.size
    return np.ascontiguousarray(matrix[order[ranks.astype(np.int64)]])


def _golden_rows(matrix: Floats, margins: Floats, count: int) -> Floats:
    """Real rows from low to high margin, and one row of an unknown actor: everything missing."""
    return np.concatenate([_spread(matrix, margins, count), np.full((1, matrix.shape[1]), np.nan)])
