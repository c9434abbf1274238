"""A model version in memory: score and explain with exactly what was published."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models._arrays import Floats, as_matrix
from models.errors import BundleCorruptError, BundleNotFoundError, UnsupportedModelError
from models.explain import Explainer, Explanation, explainer_of
from models.golden import Golden, decode_background, decode_golden, encode_background, encode_golden
from models.manifest import SCHEMA_VERSION, ExplanationSpec, Manifest, ModelCard, decode_manifest, encode_manifest
from models.scorer import Scorer, Scores
from models.trees import read_graph

MANIFEST, MODEL, GOLDEN, BACKGROUND = "manifest.json", "model.onnx", "golden.parquet", "background.parquet"
CONTENT_FILES = (MODEL, GOLDEN, BACKGROUND)
_VERSION_DIGITS = 16
_BASE_VALUE_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Reason:
    """One feature's share of a margin: attribution in log-odds, value as the model saw it (NaN: missing)."""

    code: str
    ref: str
    value: float
    attribution: float


@dataclass(frozen=True, slots=True)
class BundleDraft:
    """What a publisher brings: the card, the ONNX graph, the background float64[B, F] of explanations (after the
    missing-value policy), and golden rows float64[G, F] as they arrive (NaN: missing)."""

    card: ModelCard
    onnx: bytes
    background: Floats
    reference: str
    golden_rows: Floats


class Bundle:
    """One model version: vector → score → explanation. Safe to share between threads."""

    def __init__(self, manifest: Manifest, version: str, scorer: Scorer, explainer: Explainer) -> None:
        self.manifest = manifest
        self.version = version
        self._scorer = scorer
        self._explainer = explainer
        replacements = [np.nan if feature.missing is None else feature.missing for feature in manifest.features]
        self._replacements = np.array(replacements, np.float64)
        self._replaces = not bool(np.isnan(self._replacements).all())

    def vector(self, values: Floats) -> Floats:
        """float64[N, F] as they arrive (NaN: missing) → what the model reads, by the manifest's missing-value policy.

        Raises InputError for another width.
        """
        rows = as_matrix(values, self._replacements.size)
        return np.where(np.isnan(rows), self._replacements, rows) if self._replaces else rows

    def score(self, matrix: Floats) -> Scores:
        """Margins and scores of what `vector` returned. Raises InputError for another width."""
        return self._scorer.score(matrix)

    def explain(self, matrix: Floats) -> Explanation:
        """Base value and attributions of what `vector` returned. Raises InputError for another width."""
        return self._explainer.explain(matrix)

    def top_reasons(self, attributions: Floats, values: Floats, count: int) -> tuple[Reason, ...]:
        """The `count` features of one row with the largest shares by absolute size, largest first; no zero shares.

        attributions and values are float64[F].
        """
        sizes = np.abs(attributions)
        kept = min(max(count, 0), sizes.size)
        top = np.argpartition(-sizes, kept - 1)[:kept] if 0 < kept < sizes.size else np.arange(kept)
        ordered = sorted(top.tolist(), key=lambda i: (-sizes[i], i))
        return tuple(self._reason(i, attributions, values) for i in ordered if sizes[i] > 0.0)

    def _reason(self, i: int, attributions: Floats, values: Floats) -> Reason:
        feature = self.manifest.features[i]
        return Reason(feature.code, feature.ref, float(values[i]), float(attributions[i]))


def build_files(draft: BundleDraft) -> dict[str, bytes]:
    """Every file of the bundle, by name; the same draft gives the same bytes.

    Raises UnsupportedModelError and InputError when the graph, the card and the rows do not fit together.
    """
    refs = [feature.ref for feature in draft.card.features]
    scorer, explainer = _open(draft.onnx, draft.background, draft.reference, len(refs))
    spec = ExplanationSpec(
        base_value=explainer.base_value,
        reference=draft.reference,
        output_space=explainer.explain(draft.background[:1]).output_space,
        background=BACKGROUND,
    )
    manifest = _manifest(draft.card, spec, {})
    bundle = Bundle(manifest, "", scorer, explainer)
    rows = bundle.vector(draft.golden_rows)
    golden = Golden(draft.golden_rows, bundle.score(rows), bundle.explain(rows).attributions)
    contents = {
        MODEL: draft.onnx,
        GOLDEN: encode_golden(golden, refs),
        BACKGROUND: encode_background(draft.background, refs),
    }
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    return contents | {MANIFEST: encode_manifest(_manifest(draft.card, spec, hashes))}


def version_of(manifest: bytes) -> str:
    """The version is the content: the manifest names the hash of every other file."""
    return hashlib.sha256(manifest).hexdigest()[:_VERSION_DIGITS]


def read_bundle(directory: Path, version: str) -> Bundle:
    """Loads a bundle and proves it: hashes, then the golden rows.

    Raises BundleNotFoundError for missing files, BundleCorruptError for contents other than published,
    GoldenMismatchError when scores or attributions come out differently here.
    """
    manifest, contents = verified_contents(directory, version)
    refs = [feature.ref for feature in manifest.features]
    background = decode_background(contents[BACKGROUND], refs)
    try:
        scorer, explainer = _open(contents[MODEL], background, manifest.explanation.reference, len(refs))
    except UnsupportedModelError as error:
        raise BundleCorruptError(f"{directory.name}/{MODEL} cannot be served: {error}") from error
    bundle = Bundle(manifest, version, scorer, explainer)
    golden = decode_golden(contents[GOLDEN], refs)
    rows = bundle.vector(golden.values)
    golden.check(bundle.score(rows), bundle.explain(rows))
    _check_base_value(manifest.explanation, explainer)
    return bundle


def verified_contents(directory: Path, version: str) -> tuple[Manifest, Mapping[str, bytes]]:
    """The manifest and the other files, each with the hash that was published.

    Raises BundleNotFoundError and BundleCorruptError.
    """
    content = _read(directory, MANIFEST)
    if version_of(content) != version:
        raise BundleCorruptError(f"{directory.name}/{MANIFEST} is not the manifest of version {version}: publish again")
    manifest = decode_manifest(content)
    if set(manifest.files) != set(CONTENT_FILES) or manifest.explanation.background != BACKGROUND:
        raise BundleCorruptError(
            f"{directory.name}/{MANIFEST} names the files {sorted(manifest.files)} and the background "
            f"{manifest.explanation.background!r}, a bundle has {sorted(CONTENT_FILES)}: publish again"
        )
    contents = {name: _read(directory, name) for name in CONTENT_FILES}
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != manifest.files[name]:
            raise BundleCorruptError(f"{directory.name}/{name} changed after publishing: restore it or publish again")
    return manifest, contents


def _manifest(card: ModelCard, explanation: ExplanationSpec, files: dict[str, str]) -> Manifest:
    given = {name: getattr(card, name) for name in ModelCard.__struct_fields__}
    return Manifest(**given, schema_version=SCHEMA_VERSION, explanation=explanation, files=files)


def _open(content: bytes, background: Floats, reference: str, feature_count: int) -> tuple[Scorer, Explainer]:
    graph = read_graph(content)
    scorer = Scorer(content)
    if scorer.feature_count != feature_count:
        raise UnsupportedModelError(
            f"the graph reads {scorer.feature_count} features, the manifest names {feature_count}: export them together"
        )
    return scorer, explainer_of(graph, background, reference)


def _read(directory: Path, name: str) -> bytes:
    path = directory / name
    if path.is_symlink():
        raise BundleCorruptError(f"{directory.name}/{name} is a link: a bundle holds its own files; publish again")
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise BundleNotFoundError(
            f"{directory.name} has no file {name}: restore it or publish the model again"
        ) from error


def _check_base_value(spec: ExplanationSpec, explainer: Explainer) -> None:
    gap = abs(spec.base_value - explainer.base_value)
    if not gap <= _BASE_VALUE_TOLERANCE * max(1.0, abs(spec.base_value)):
        raise BundleCorruptError(
            f"the background gives the base value {explainer.base_value}, the manifest says {spec.base_value}: "
            "publish the model again"
        )
