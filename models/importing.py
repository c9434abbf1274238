"""A model made elsewhere as a bundle: its ONNX file, checked against itself and, if given, against expected scores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

import numpy as np

from models._arrays import Floats, as_matrix
from models.admission import named, read_graph
from models.bundle import BundleDraft
from models.conformance import Expected, Report, check_model
from models.errors import ExportMismatchError, InputError, UnsupportedModelError
from models.graph import VALUE
from models.manifest import Feature, ModelCard, Service, Source, Thresholds, reason_code
from models.scorer import Scorer

FEATURES_PROPERTY, MISSING_PROPERTY = "actor_risk.features", "actor_risk.missing"
"""Metadata of a file: a JSON list of its features in order, and a JSON object of what replaces missing values."""
CLASSIFIER_THRESHOLDS = (0.5, 0.9)
BACKGROUND_ROWS = 100
GOLDEN_ROWS = 32
_LIBRARIES = ("numpy", "onnx", "onnxruntime")


@dataclass(frozen=True, slots=True)
class ImportSpec:
    """What the importer says about a file.

    model_name    name in the store
    file          the file's name, for the record
    service       the feature service with its fingerprint
    service_refs  what that service gives, `view:feature` each
    features      the graph's features in its order, as `view:feature` or `feature`; () to take them from the file
    missing       what replaces missing values, by feature; `*` for all others
    target        label or index of the class or target that is scored; None for the second of two, or the only one
    label         what a high score means, for people
    review, block thresholds; None for the default of classifiers
    """

    model_name: str
    file: str
    service: Service
    service_refs: tuple[str, ...]
    features: tuple[str, ...] = ()
    missing: Mapping[str, float] | None = None
    target: str | None = None
    label: str = ""
    review: float | None = None
    block: float | None = None


@dataclass(frozen=True, slots=True)
class Import:
    """A draft that passed every check, and the checks."""

    draft: BundleDraft
    report: Report


def features_of(content: bytes, spec: ImportSpec) -> tuple[Feature, ...]:
    """The graph's features in its order, with what replaces missing values: as given, else as the file's metadata says.

    Raises InputError for features that nobody names, that the service does not give, or that are named twice.
    """
    props = {entry.key: entry.value for entry in read_graph(content).metadata_props}
    names = spec.features or _texts(props.get(FEATURES_PROPERTY), FEATURES_PROPERTY)
    if not names:
        raise InputError(
            f"nobody says which features the graph reads, and in which order: give them, or write a JSON list into the "
            f"file's metadata {FEATURES_PROPERTY!r}"
        )
    refs = [_ref(name, spec.service_refs, spec.service.name) for name in names]
    missing = _numbers(props.get(MISSING_PROPERTY)) if spec.missing is None else dict(spec.missing)
    rest = missing.pop("*", None)
    by_ref = {_ref(name, spec.service_refs, spec.service.name): value for name, value in missing.items()}
    unread = sorted(set(by_ref) - set(refs))
    if unread:
        raise InputError(f"a missing value of {', '.join(unread)} is replaced, but the graph does not read it")
    return tuple(Feature(ref=ref, code=reason_code(ref), missing=by_ref.get(ref, rest)) for ref in refs)


def import_model(
    content: bytes,
    spec: ImportSpec,
    features: Sequence[Feature],
    rows: Floats,
    expected: Expected | None = None,
) -> Import:
    """The draft of a bundle of an ONNX file whose inputs are `features` (see `features_of`).

    `rows` are real rows float64[N, F] as they arrive (NaN: missing): the file is compared with itself on them, and
    background and golden rows are taken from them. Only with `expected` it is compared with the framework that trained
    it, and the manifest says with how many rows.
    Raises ExportMismatchError when a check fails, InputError for thresholds or rows that do not fit.
    """
    fill = np.array([np.nan if feature.missing is None else feature.missing for feature in features], np.float64)
    rows = as_matrix(rows, len(features))
    report = check_model(
        content, rows=rows, expected=expected, target=spec.target, width=len(features), replacements=fill
    )
    if report.onnx is None or report.facts is None or report.failures:
        failed = "; ".join(f"{check.name}: {check.detail}" for check in report.failures)
        raise ExportMismatchError(f"{named(spec.file)} is not imported: {failed}")
    thresholds = _thresholds(spec, report.facts.output_space)
    filled = np.where(np.isnan(rows), fill, rows)
    margins = Scorer(report.onnx).score(filled).margin
    if not np.isfinite(margins).all():
        raise InputError(
            "the graph gives no score for rows with missing values: say what replaces them (--missing NAME=VALUE)"
        )
    card = ModelCard(
        model_name=spec.model_name,
        label=spec.label,
        service=spec.service,
        features=tuple(features),
        thresholds=thresholds,
        calibration="as imported",
        source=_source(content, spec.file, expected),
        libraries={name: metadata.version(name) for name in _LIBRARIES},
    )
    background = filled[spread(margins, BACKGROUND_ROWS)]
    golden = np.concatenate([rows[spread(margins, GOLDEN_ROWS)], np.full((1, rows.shape[1]), np.nan)])
    reference = f"{len(background)} of {len(rows):,} rows given at import, evenly spaced by margin"
    return Import(BundleDraft(card, report.onnx, background, reference, golden), report)


def spread(margins: Floats, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """`count` places (or all, when fewer) at evenly spaced ranks of the margin: their mean is close to that of all."""
    order = np.argsort(margins, kind="stable")
    ranks = (np.arange(min(count, order.size)) + 0.5) / min(count, order.size) * order.size
    return order[ranks.astype(np.int64)]


def _ref(name: str, service_refs: Sequence[str], service: str) -> str:
    """`view:feature` of a feature's name in a service."""
    found = [ref for ref in service_refs if name in (ref, ref.split(":")[-1])]
    if len(found) != 1:
        known = ", ".join(service_refs)
        raise InputError(
            f"feature service {service!r} has {len(found)} features {named(name)!r}: name one of {named(known, 2_000)}"
        )
    return found[0]


def _thresholds(spec: ImportSpec, output_space: str) -> Thresholds:
    if output_space == VALUE and (spec.review is None or spec.block is None):
        raise InputError(
            "the graph is a regression: its score is the value itself, so say in its unit from which value on an actor "
            "is reviewed and blocked (--review, --block)"
        )
    default_review, default_block = CLASSIFIER_THRESHOLDS
    review = default_review if spec.review is None else spec.review
    block = max(review, default_block) if spec.block is None else spec.block
    return Thresholds(review=review, block=block)


def _source(content: bytes, file: str, expected: Expected | None) -> Source:
    model = read_graph(content)
    return Source(
        file=named(file),
        sha256=hashlib.sha256(content).hexdigest(),
        producer=named(f"{model.producer_name} {model.producer_version}".strip()),
        compared_rows=0 if expected is None else len(expected.scores),
    )


def _texts(given: str | None, key: str) -> tuple[str, ...]:
    values = [] if given is None else _json(given, key)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise UnsupportedModelError(f"the file's metadata {key!r} is no JSON list of texts: {named(given)}")
    return tuple(values)


def _numbers(given: str | None) -> dict[str, float]:
    values = {} if given is None else _json(given, MISSING_PROPERTY)
    if not isinstance(values, dict) or not all(isinstance(value, int | float) for value in values.values()):
        raise UnsupportedModelError(f"the file's metadata {MISSING_PROPERTY!r} is no JSON object of numbers")
    return {str(name): float(value) for name, value in values.items()}


def _json(given: str, key: str) -> object:
    try:
        return json.loads(given)
    except ValueError as error:
        raise UnsupportedModelError(f"the file's metadata {key!r} is no JSON ({error})") from error
