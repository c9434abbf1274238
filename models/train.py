"""From labelled rows to a published bundle: fit trees on the past, judge them on what came later.

    training set ── train ──► trained model ── publish_trained ──► version in the store

Needs the extra `train`; serving never imports this module.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, resources

import msgspec
import numpy as np
from numpy.typing import NDArray

from models._arrays import Floats
from models.bundle import BundleDraft
from models.calibration import NO_CALIBRATION, Calibration, fit_calibration
from models.errors import TrainingError
from models.export import export_trees, verify_export
from models.manifest import Feature, Metrics, ModelCard, ReasonText, Service, Thresholds, TrainingData
from models.metrics import measure, threshold_for_capacity, threshold_for_precision
from models.settings import TrainSettings
from models.store import ModelStore
from models.trainers import Fitted, load_trainer
from models.training_set import Spans, TrainingSet, split_by_time
from models.tree_scorer import serving_scorer

__all__ = ["TrainSettings", "TrainedModel", "code_fingerprint", "publish_trained", "train"]

_LIBRARIES = ("numpy", "onnx", "onnxruntime", "scikit-learn")
_PACKAGES = ("models", "models.explain", "models.storage", "models.trainers")
_DAY_MS = 86_400_000
_CATEGORY_MAX = 2**24 - 2
"""From here on XGBoost takes a value for no category."""


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A fitted model that is not published yet.

    fitted       as its library has it
    onnx         the exported graph, already proven equal to `fitted`
    export_gap   largest difference found in that proof
    calibrated   what happens to margins of `fitted` before they are served
    calibration  that, and how it came out, for people
    background   float64[B, F], rows that explanations compare with, after the missing-value policy
    golden_rows  float64[G, F] as they arrive
    """

    fitted: Fitted
    onnx: bytes
    export_gap: float
    features: tuple[Feature, ...]
    label: str
    thresholds: Thresholds
    metrics: Metrics
    training: TrainingData
    calibrated: Calibration
    calibration: str
    background: Floats
    reference: str
    golden_rows: Floats
    settings: TrainSettings
    reasons: tuple[ReasonText, ...] = ()


def train(
    training_set: TrainingSet, *, settings: TrainSettings, progress: Callable[[int, int], None] | None = None
) -> TrainedModel:
    """Fits, calibrates, exports, proves the export, picks thresholds and measures; equal rows and settings give equal
    bytes.

    `progress` is called with (trees done, trees in all).
    Raises TrainingError when the rows cannot be split or learned from, ExportMismatchError when the graph is wrong.
    """
    spans = split_by_time(training_set, tune_share=settings.tune_share, test_share=settings.test_share)
    matrix, labels = training_set.filled(), training_set.labels
    categorical = _categorical(training_set.refs, matrix, settings)
    weights = _weights(labels[spans.fit], settings)
    fitted = load_trainer(settings.trainer).fit(
        matrix[spans.fit], labels[spans.fit], weights, settings, categorical, progress
    )
    calibration = fit_calibration(settings.calibration, fitted.margin(matrix[spans.tune]), labels[spans.tune])
    onnx = export_trees(fitted.trees(), calibration)
    gap = _verify(fitted, calibration, onnx, matrix, seed=settings.seed)
    scores = serving_scorer(onnx, matrix).score(matrix)  # thresholds are scores of rows, to the last bit
    thresholds = _thresholds(training_set, spans, scores.score, settings)
    metrics = measure(labels[spans.test], scores.score[spans.test], thresholds)
    background = _spread(matrix[spans.fit], scores.margin[spans.fit], settings.background_rows)
    return TrainedModel(
        fitted=fitted,
        onnx=onnx,
        export_gap=gap,
        features=training_set.features(),
        label=training_set.label,
        thresholds=thresholds,
        metrics=metrics,
        training=spans.data,
        calibrated=calibration,
        calibration=_told(calibration, metrics, int(spans.tune.sum()), settings),
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
    _verify(trained.fitted, trained.calibrated, trained.onnx, trained.background)
    library, version = trained.fitted.library
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
        libraries={library: version} | {name: metadata.version(name) for name in _LIBRARIES},
    )
    return store.publish(BundleDraft(card, trained.onnx, trained.background, trained.reference, trained.golden_rows))


def code_fingerprint() -> str:
    """SHA-256 over the sources that a model comes from, in order of their names."""
    digest = hashlib.sha256()
    for package in _PACKAGES:
        for file in sorted(resources.files(package).iterdir(), key=lambda path: path.name):
            if file.name.endswith(".py"):
                digest.update(f"{package}/{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def positive_weight(labels: NDArray[np.int8], settings: TrainSettings) -> float:
    """How much a positive row counts; of "balanced", as much as both classes need to count alike."""
    if settings.positive_weight != "balanced":
        return settings.positive_weight
    return float((labels.size - labels.sum()) / labels.sum())


def _weights(labels: NDArray[np.int8], settings: TrainSettings) -> Floats | None:
    weight = positive_weight(labels, settings)
    return None if weight == 1.0 else np.where(labels == 1, weight, 1.0)


def _categorical(refs: tuple[str, ...], matrix: Floats, settings: TrainSettings) -> tuple[int, ...]:
    """The columns of the settings' categorical features. Raises TrainingError for unknown ones and for other values
    than codes."""
    unknown = sorted(set(settings.categorical) - set(refs))
    if unknown:
        raise TrainingError(f"categorical: there is no feature {unknown[0]!r}; the service has {', '.join(refs)}")
    columns = tuple(place for place, ref in enumerate(refs) if ref in settings.categorical)
    for column in columns:
        values = matrix[:, column][~np.isnan(matrix[:, column])]
        if not np.all((values >= 0) & (values <= _CATEGORY_MAX) & (np.floor(values) == values)):
            raise TrainingError(
                f"categorical: {refs[column]} holds other values than codes, whole numbers from 0 to {_CATEGORY_MAX:,}"
            )
    return columns


def _verify(fitted: Fitted, calibration: Calibration, onnx: bytes, rows: Floats, *, seed: int = 0) -> float:
    return verify_export(fitted.margin, onnx, rows, calibration=calibration, native_score=fitted.score, seed=seed)


def _thresholds(rows: TrainingSet, spans: Spans, scores: Floats, settings: TrainSettings) -> Thresholds:
    labels, tuned = rows.labels[spans.tune], scores[spans.tune]
    block = threshold_for_precision(labels, tuned, settings.block_precision, settings.flagged_min)
    if settings.review_per_day is not None:
        days = (spans.data.test_ms - spans.data.tune_ms) / _DAY_MS
        review = threshold_for_capacity(tuned, settings.review_per_day * days * rows.share, block)
    else:
        review = threshold_for_precision(labels, tuned, settings.review_precision, settings.flagged_min)
    return Thresholds(
        review=review,
        block=max(review, block),
        review_precision=settings.review_precision if settings.review_per_day is None else None,
        block_precision=settings.block_precision,
        review_per_day=settings.review_per_day,
    )


def _told(calibration: Calibration, metrics: Metrics, tune_rows: int, settings: TrainSettings) -> str:
    fitted = "" if calibration is NO_CALIBRATION else f", fitted on the {tune_rows:,} rows of the tune span"
    skewed = calibration is NO_CALIBRATION and settings.positive_weight != 1.0
    warning = "; positives were weighted, so a score is not a probability" if skewed else ""
    return (
        f"{calibration.told()}{fitted}{warning}; on the test span the mean score is {metrics.mean_score:.4f} "
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
