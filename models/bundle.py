"""A model version in memory: score and explain with exactly what was published."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models._arrays import Floats, as_matrix
from models._files import FILE_BYTES_MAX, checked_file
from models.admission import needs_trial, read_graph
from models.errors import BundleCorruptError, BundleNotFoundError, InputError, UnsupportedModelError
from models.explain import (
    PATH_TREES,
    Chosen,
    Explainer,
    Explanation,
    InterventionalTrees,
    Prepared,
    SamplingExplainer,
    TreeTables,
    decode_tables,
    encode_tables,
    explainer_of,
    is_exact,
    map_tables,
)
from models.golden import Golden, decode_background, decode_golden, encode_background, encode_golden
from models.graph import LOG_ODDS, RAW_MARGIN, VALUE, GraphFacts, facts_of
from models.manifest import (
    SCHEMA_VERSION,
    ExplanationSpec,
    GraphSpec,
    Manifest,
    ModelCard,
    Thresholds,
    decode_manifest,
    encode_manifest,
)
from models.reasons import ReasonIndex, Reasons
from models.scorer import Scorer, Scores
from models.tree_scorer import TreeScorer, fastest_scorer
from models.trial import try_out

MANIFEST, MODEL, GOLDEN, BACKGROUND = "manifest.json", "model.onnx", "golden.parquet", "background.parquet"
TABLES = "tables.bin"
CONTENT_FILES = (MODEL, GOLDEN, BACKGROUND)
"""What every bundle has. One whose model is trees has TABLES too."""
_VERSION_DIGITS = 16
_BASE_VALUE_TOLERANCE, _SINGLE_BASE_VALUE_TOLERANCE = 1e-9, 1e-5
_SCORE_TOLERANCE = 1e-6
_ADDITIVITY_TOLERANCE, _SINGLE_ADDITIVITY_TOLERANCE = 1e-9, 1e-5


@dataclass(frozen=True, slots=True)
class BundleDraft:
    """What a publisher brings: the card, the ONNX graph in the served form (`models.graph`), the background
    float64[B, F] of explanations (after the missing-value policy), and golden rows float64[G, F] as they arrive (NaN:
    missing). `path_dependent`: explain trees by their covers instead of against the background."""

    card: ModelCard
    onnx: bytes
    background: Floats
    reference: str
    golden_rows: Floats
    path_dependent: bool = False


class Bundle:
    """One model version: vector → score → explanation. Safe to share between threads."""

    def __init__(
        self, manifest: Manifest, version: str, scorer: Scorer | TreeScorer, explainer: Explainer, background: Floats
    ) -> None:
        self.manifest = manifest
        self.version = version
        self._scorer = scorer
        self._explainer = explainer
        self._background = background
        replacements = [np.nan if feature.missing is None else feature.missing for feature in manifest.features]
        self._replacements = np.array(replacements, np.float64)
        self._replaces = not bool(np.isnan(self._replacements).all())
        self._reasons = ReasonIndex(manifest.features, manifest.reasons)

    def vector(self, values: Floats) -> Floats:
        """float64[N, F] as they arrive (NaN: missing) → what the model reads, by the manifest's missing-value policy.

        Raises InputError for another width.
        """
        rows = as_matrix(values, self._replacements.size)
        return np.where(np.isnan(rows), self._replacements, rows) if self._replaces else rows

    def score(self, matrix: Floats) -> Scores:
        """Margins and scores of what `vector` returned. Raises InputError for another width."""
        return self._scorer.score(matrix)

    def background_scores(self) -> Floats:
        """float64[B]: the scores of the rows that explanations compare with."""
        return self.score(self._background).score

    def explain(self, matrix: Floats, deadline_ms: float | None = None) -> Explanation:
        """Base value and attributions of what `vector` returned.

        An explanation that is estimated ends after about `deadline_ms` milliseconds; exact ones take what they take.
        Raises InputError for another width.
        """
        if isinstance(self._explainer, SamplingExplainer):
            return self._explainer.explain(matrix, deadline_ms)
        return self._explainer.explain(matrix)

    def top_reasons(self, attributions: Floats, count: int, features_max: int = 3) -> Reasons:
        """The `count` reasons with the largest shares of one row's attributions float64[F], and the rest."""
        return self._reasons.strongest(attributions, count, features_max)

    def explain_probability(self, matrix: Floats) -> Explanation:
        """The same for the probability: base value + attributions = score. Slow: a game for each background row.

        Raises UnsupportedModelError unless the model is trees in log-odds, explained against their background;
        InputError for another width.
        """
        if isinstance(self._explainer, InterventionalTrees | Prepared):
            return self._explainer.explain_probability(matrix)
        raise UnsupportedModelError("only trees in log-odds that compare with a background explain a probability")


def build_files(draft: BundleDraft) -> dict[str, bytes]:
    """Every file of the bundle, by name; the same draft gives the same bytes.

    Raises UnsupportedModelError and InputError when the graph, the card and the rows do not fit together.
    """
    refs = [feature.ref for feature in draft.card.features]
    opened = _open(draft.onnx, draft.background, draft.reference, len(refs), path_dependent=draft.path_dependent)
    _check_thresholds(draft.card.thresholds, opened.facts)
    manifest = _manifest(draft.card, opened, draft.reference, {})
    bundle = Bundle(manifest, "", opened.scorer, opened.chosen.explainer, draft.background)
    rows = bundle.vector(draft.golden_rows)
    if not len(rows):
        raise InputError("golden rows prove a bundle at every load: give at least one row")
    scores, explanation = bundle.score(rows), bundle.explain(rows)
    check_outputs(opened.facts, scores, explanation)
    golden = Golden(draft.golden_rows, scores, explanation.attributions)
    contents = {
        MODEL: draft.onnx,
        GOLDEN: encode_golden(golden, refs),
        BACKGROUND: encode_background(draft.background, refs),
    }
    if opened.chosen.tables is not None:
        contents[TABLES] = encode_tables(opened.chosen.tables, _made_of(contents))
    _check_sizes(contents)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    return contents | {MANIFEST: encode_manifest(_manifest(draft.card, opened, draft.reference, hashes))}


def version_of(manifest: bytes) -> str:
    """The version is the content: the manifest names the hash of every other file."""
    return hashlib.sha256(manifest).hexdigest()[:_VERSION_DIGITS]


def read_bundle(directory: Path, version: str) -> Bundle:
    """Loads a bundle and proves it: hashes, then the golden rows.

    Raises BundleNotFoundError for missing files, BundleCorruptError for contents other than published or that would not
    be published, GoldenMismatchError when scores or attributions come out differently here.
    """
    manifest, contents = verified_contents(directory, version)
    refs = [feature.ref for feature in manifest.features]
    background = decode_background(bytes(contents[BACKGROUND]), refs)
    tables = decode_tables(contents[TABLES], _made_of(contents)) if TABLES in contents else None
    with _refusing(directory):
        opened = _open(
            bytes(contents[MODEL]),
            background,
            manifest.explanation.reference,
            len(refs),
            path_dependent=manifest.explanation.method == PATH_TREES,
            tables=tables,
        )
    _check_agreement(directory, manifest, opened)
    bundle = Bundle(manifest, version, opened.scorer, opened.chosen.explainer, background)
    golden = decode_golden(bytes(contents[GOLDEN]), refs)
    rows = bundle.vector(golden.values)
    scores, explanation = bundle.score(rows), bundle.explain(rows)
    golden.check(scores, explanation, single_precision=opened.facts.is_single)
    with _refusing(directory):
        check_outputs(opened.facts, scores, explanation)
    _check_base_value(manifest.explanation, opened)
    return bundle


@contextmanager
def _refusing(directory: Path) -> Iterator[None]:
    """What would not be published is not loaded either."""
    try:
        yield
    except (UnsupportedModelError, InputError) as error:
        raise BundleCorruptError(f"{directory.name}/{MODEL} cannot be served: {error}") from error


def checked_manifest(content: bytes, version: str) -> Manifest:
    """The manifest of this version, which names the files of a bundle and no others. Raises BundleCorruptError."""
    if version_of(content) != version:
        raise BundleCorruptError(f"{version}/{MANIFEST} is not the manifest of version {version}: publish again")
    manifest = decode_manifest(content)
    if set(manifest.files) - {TABLES} != set(CONTENT_FILES) or manifest.explanation.background != BACKGROUND:
        raise BundleCorruptError(
            f"{version}/{MANIFEST} names the files {sorted(manifest.files)} and the background "
            f"{manifest.explanation.background!r}, a bundle has {sorted(CONTENT_FILES)}: publish again"
        )
    return manifest


def verified_contents(directory: Path, version: str) -> tuple[Manifest, Mapping[str, bytes | memoryview]]:
    """The manifest and the other files, each with the hash that was published. The tables are mapped, not read.

    Raises BundleNotFoundError and BundleCorruptError.
    """
    manifest = checked_manifest(_read(directory, MANIFEST), version)
    contents: dict[str, bytes | memoryview] = {name: _read(directory, name) for name in CONTENT_FILES}
    if TABLES in manifest.files:
        contents[TABLES] = _mapped(directory, TABLES)
    for name, found in contents.items():
        if hashlib.sha256(found).hexdigest() != manifest.files[name]:
            raise BundleCorruptError(f"{directory.name}/{name} changed after publishing: restore it or publish again")
    return manifest, contents


def check_outputs(facts: GraphFacts, scores: Scores, explanation: Explanation) -> None:
    """Raises UnsupportedModelError unless each score is a number, follows from its margin, and is explained in full."""
    if not (np.isfinite(scores.margin).all() and np.isfinite(scores.score).all()):
        raise UnsupportedModelError(
            "the graph gives no number for a row with missing values: say what replaces them in the card's features"
        )
    if facts.output_space == LOG_ODDS:
        with np.errstate(over="ignore"):
            expected = 1.0 / (1.0 + np.exp(-scores.margin))
    else:
        expected = scores.score if facts.output_space == RAW_MARGIN else scores.margin
    if facts.output_space != VALUE and not np.all((scores.score >= 0.0) & (scores.score <= 1.0 + _SCORE_TOLERANCE)):
        raise UnsupportedModelError("a classifier's score lies outside of 0 to 1: export probabilities")
    if not np.all(np.abs(scores.score - expected) <= _SCORE_TOLERANCE):
        raise UnsupportedModelError(
            f"the graph's scores do not follow from its margins, as {facts.output_space} would have it: import it again"
        )
    sums = explanation.base_value + explanation.attributions.sum(axis=1)
    sizes = np.maximum(1.0, np.abs(explanation.attributions).sum(axis=1) + abs(explanation.base_value))
    gaps = np.abs(sums - scores.margin) / sizes
    if not np.all(gaps <= additivity_tolerance(facts)):
        raise UnsupportedModelError(
            f"base value and attributions miss the margin by {gaps.max():.3g} of their size: the graph does not "
            "compute what its parts say; export the model again"
        )


def additivity_tolerance(facts: GraphFacts) -> float:
    """How far base value + attributions may be from the margin, as a share of what is added up (or of 1)."""
    return _SINGLE_ADDITIVITY_TOLERANCE if facts.is_single else _ADDITIVITY_TOLERANCE


@dataclass(frozen=True, slots=True)
class _Opened:
    facts: GraphFacts
    scorer: Scorer | TreeScorer
    chosen: Chosen


def _manifest(card: ModelCard, opened: _Opened, reference: str, files: dict[str, str]) -> Manifest:
    given = {name: getattr(card, name) for name in ModelCard.__struct_fields__}
    spec = ExplanationSpec(
        base_value=opened.chosen.explainer.base_value,
        reference=reference,
        output_space=opened.facts.output_space,
        background=BACKGROUND,
        method=opened.chosen.method,
    )
    graph = _graph_spec(opened)
    return Manifest(**given, schema_version=SCHEMA_VERSION, explanation=spec, files=files, graph=graph)


def _graph_spec(opened: _Opened) -> GraphSpec:
    facts = opened.facts
    return GraphSpec(
        input_type=facts.input_type,
        target=facts.target,
        target_name=facts.target_name,
        preparation=opened.chosen.preparation,
    )


def _open(
    content: bytes,
    background: Floats,
    reference: str,
    feature_count: int,
    *,
    path_dependent: bool = False,
    tables: TreeTables | None = None,
) -> _Opened:
    """1. admit the file, 2. try it out apart unless its parts are known, 3. read the trees, 4. load it, and see whether
    our own loop may score it."""
    graph = read_graph(content)
    facts = facts_of(graph)
    if facts.width != feature_count:
        raise UnsupportedModelError(
            f"the graph reads {facts.width} features, the manifest names {feature_count}: export them together"
        )
    if needs_trial(graph) or not is_exact(graph):
        try_out(content, facts)
    loaded = functools.cache(lambda: Scorer(content))
    chosen = explainer_of(
        graph,
        background,
        reference,
        lambda rows: loaded().margin(rows),
        path_dependent=path_dependent,
        tables=tables,
    )
    return _Opened(facts, fastest_scorer(graph, facts, loaded(), background), chosen)


def _check_thresholds(thresholds: Thresholds, facts: GraphFacts) -> None:
    if facts.output_space != VALUE and not thresholds.review > 0.0:
        raise InputError(f"thresholds of a score of 0 to 1 need 0 < review, got {thresholds.review}")


def _check_agreement(directory: Path, manifest: Manifest, opened: _Opened) -> None:
    said = (manifest.graph, manifest.explanation.output_space, manifest.explanation.method)
    found = (_graph_spec(opened), opened.facts.output_space, opened.chosen.method)
    if said != found:
        raise BundleCorruptError(
            f"{directory.name}/{MODEL} is {found}, the manifest says {said}: publish the model again"
        )


def _check_sizes(contents: Mapping[str, bytes]) -> None:
    """Of the model file's neighbours only the tables grow without a bound of their own."""
    size = len(contents.get(TABLES, b""))
    if size > FILE_BYTES_MAX:
        raise UnsupportedModelError(
            f"the tables of its explanation have {size:,} bytes, more than {FILE_BYTES_MAX:,}: train fewer trees or "
            "shallower ones"
        )


def _made_of(contents: Mapping[str, bytes | memoryview]) -> bytes:
    """What explanation tables depend on, as one SHA-256."""
    parts = [hashlib.sha256(contents[name]).digest() for name in (MODEL, BACKGROUND)]
    return hashlib.sha256(b"".join(parts)).digest()


def _read(directory: Path, name: str) -> bytes:
    return _checked(directory, name).read_bytes()


def _mapped(directory: Path, name: str) -> memoryview:
    path = _checked(directory, name)
    if not path.stat().st_size:
        raise BundleCorruptError(f"{directory.name}/{name} is empty: restore it or publish again")
    return map_tables(path)


def _checked(directory: Path, name: str) -> Path:
    try:
        return checked_file(directory / name, FILE_BYTES_MAX)
    except FileNotFoundError as error:
        raise BundleNotFoundError(
            f"{directory.name} has no file {name}: restore it or publish the model again"
        ) from error


def _check_base_value(spec: ExplanationSpec, opened: _Opened) -> None:
    found = opened.chosen.explainer.base_value
    tolerance = _SINGLE_BASE_VALUE_TOLERANCE if opened.facts.is_single else _BASE_VALUE_TOLERANCE
    if not abs(spec.base_value - found) <= tolerance * max(1.0, abs(spec.base_value)):
        raise BundleCorruptError(
            f"the background gives the base value {found}, the manifest says {spec.base_value}: publish the model again"
        )
