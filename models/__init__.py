"""How a feature vector becomes a score and an explanation: train, export, bundle, scorer, explain.

Training (`models.train`, `models.metrics`) needs the extra `train` and is imported by its own name.
"""

from models.bundle import Bundle, BundleDraft
from models.errors import (
    AliasMovedError,
    BundleCorruptError,
    BundleError,
    BundleNotFoundError,
    ExportMismatchError,
    GoldenMismatchError,
    InputError,
    ModelError,
    StoreUnavailableError,
    TrainingError,
    UnsafeNameError,
    UnsupportedModelError,
    UnsupportedStoreError,
)
from models.explain import Explainer, Explanation
from models.manifest import (
    ExplanationSpec,
    Feature,
    Manifest,
    Metrics,
    ModelCard,
    OperatingPoint,
    ReasonText,
    Service,
    Thresholds,
    TrainingData,
)
from models.reasons import Meaning, Reason, ReasonIndex, Reasons
from models.scorer import Scorer, Scores
from models.store import CHALLENGER, CHAMPION, SHADOW, AliasChange, ModelStore

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "SHADOW",
    "AliasChange",
    "AliasMovedError",
    "Bundle",
    "BundleCorruptError",
    "BundleDraft",
    "BundleError",
    "BundleNotFoundError",
    "Explainer",
    "Explanation",
    "ExplanationSpec",
    "ExportMismatchError",
    "Feature",
    "GoldenMismatchError",
    "InputError",
    "Manifest",
    "Meaning",
    "Metrics",
    "ModelCard",
    "ModelError",
    "ModelStore",
    "OperatingPoint",
    "Reason",
    "ReasonIndex",
    "ReasonText",
    "Reasons",
    "Scorer",
    "Scores",
    "Service",
    "StoreUnavailableError",
    "Thresholds",
    "TrainingData",
    "TrainingError",
    "UnsafeNameError",
    "UnsupportedModelError",
    "UnsupportedStoreError",
]
