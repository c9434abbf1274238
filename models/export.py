"""Trees to ONNX in double precision, and the proof that the graph computes what the native model computes.

         ┌──────────────┐          ┌──────────────────────────────────┐
features │ TreeEnsemble │ ► margin │ Sigmoid, or TreeEnsemble (steps) │ ► score
         └──────────────┘          └──────────────────────────────────┘

`TreeEnsemble` is version 5 of ai.onnx.ml. `nodes_hitrates` is left out, since ONNX Runtime loads the double form only
without it: covers stand in the metadata. How a calibration goes in: `models.calibration`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import onnx
from onnx import TensorProto, helper

from models._arrays import Floats
from models._operators import LEQ, MEMBER, Members
from models.admission import read_graph
from models.calibration import NO_CALIBRATION, Calibration, Platt, Steps
from models.errors import ExportMismatchError, TrainingError, UnsupportedModelError
from models.explain import trees_behind
from models.graph import RAW_MARGIN, SPACE_PROPERTY
from models.lightgbm_text import read_lightgbm
from models.scorer import Scorer
from models.trees import COVERS_PROPERTY, FEATURES, LEAF, MARGIN, SCORE, Ensemble, Tree, TreeBuilder

EXPORT_TOLERANCE = 1e-6
_OPSETS = {"": 21, "ai.onnx.ml": 5}
_IR_VERSION = 10
_EDGE_THRESHOLDS_MAX = 2_000
_REAL_ROWS_MAX = 5_000
_EXACT_SET_MAX = 30
"""ONNX Runtime compares a set of at most so many members, none larger than that, with the value as it is, and any other
set with the value's integer part."""
_UNSEEN = (-1.0, 0.5, 1e6, 1e300)
"""Added to the largest category of a set, or alone: values that no set holds, or only by their integer part."""


class TextModel(Protocol):
    """What is needed of a LightGBM booster to export it."""

    def model_to_string(self) -> str: ...


def export_lightgbm(booster: TextModel) -> bytes:
    """The booster as a serialised ONNX model, see `export_trees`.

    Raises UnsupportedModelError for other objectives than binary and for linear leaves.
    """
    return export_trees(read_lightgbm(booster.model_to_string()))


def export_trees(ensemble: Ensemble, calibration: Calibration = NO_CALIBRATION) -> bytes:
    """Plain trees whose sum is log-odds as a serialised ONNX model: input `features` double[N, F], outputs `margin`
    double[N, 1] and `score` double[N, 1]. Equal trees give equal bytes.

    Covers go into the metadata if all trees have them.
    Raises TrainingError when there are no trees, UnsupportedModelError for trees that round their input.
    """
    if not ensemble.trees:
        raise TrainingError("the model has no trees: train at least one iteration")
    if ensemble.single_precision:
        raise UnsupportedModelError("these trees round their input to float32: move their thresholds to double first")
    if isinstance(calibration, Platt):
        ensemble = ensemble.scaled(calibration.slope, calibration.intercept)
    trees = _Attributes()
    graph = helper.make_graph(
        [_operator(trees.of(_without_constant(ensemble)), FEATURES, MARGIN), _link(calibration)],
        "actor_risk",
        [helper.make_tensor_value_info(FEATURES, TensorProto.DOUBLE, ["N", ensemble.feature_count])],
        [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["N", 1]) for name in (MARGIN, SCORE)],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS.items()]
    model = helper.make_model(graph, opset_imports=opsets, producer_name="actor-risk", ir_version=_IR_VERSION)
    properties = {SPACE_PROPERTY: RAW_MARGIN} if isinstance(calibration, Steps) else {}
    if ensemble.has_covers:
        properties[COVERS_PROPERTY] = " ".join(f"{cover:.17g}" for cover in trees.covers)
    helper.set_model_props(model, properties)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _operator(attributes: dict[str, Any], source: str, target: str) -> onnx.NodeProto:
    return helper.make_node("TreeEnsemble", [source], [target], domain="ai.onnx.ml", **attributes)


def _link(calibration: Calibration) -> onnx.NodeProto:
    """What makes the score of the margin."""
    if not isinstance(calibration, Steps):
        return helper.make_node("Sigmoid", [MARGIN], [SCORE])
    return _operator(_Attributes().of(Ensemble(1, (_steps_tree(calibration),))), MARGIN, SCORE)


def _without_constant(ensemble: Ensemble) -> Ensemble:
    """The constant as part of the first tree's leaves: the operator has no place for it."""
    first = ensemble.trees[0]
    moved = replace(first, value=np.where(first.feature == LEAF, first.value + ensemble.constant, 0.0))
    return replace(ensemble, trees=(moved, *ensemble.trees[1:]), constant=0.0)


def _steps_tree(steps: Steps) -> Tree:
    """A balanced tree of one feature: the margin."""
    builder = TreeBuilder()
    waiting = [(builder.reserve(), 0, len(steps.scores))]
    while waiting:
        node, begin, end = waiting.pop()
        if end - begin == 1:
            builder.set_leaf(node, steps.scores[begin])
            continue
        middle, left, right = (begin + end) // 2, builder.reserve(), builder.reserve()
        builder.set_split(node, 0, steps.ends[middle - 1], True, left, right)
        waiting += [(left, begin, middle), (right, middle, end)]
    return builder.build()


def verify_export(
    native_margin: Callable[[Floats], Floats],
    content: bytes,
    rows: Floats,
    *,
    calibration: Calibration = NO_CALIBRATION,
    native_score: Callable[[Floats], Floats] | None = None,
    seed: int = 0,
) -> float:
    """The largest difference of margin or score between the native model and the graph, over real rows, rows at and
    beside every threshold, seen and unseen categories, and rows with missing values.

    `native_margin` maps float64[N, F] to log-odds float64[N] before `calibration`. `native_score`, if given, maps the
    same rows to the library's own probabilities, which must follow from these log-odds.
    Raises ExportMismatchError above EXPORT_TOLERANCE.
    """
    ensemble = trees_behind(read_graph(content))
    if ensemble is None:
        raise ExportMismatchError("the graph's margin is not made by trees of the features: export the model again")
    probes = probe_rows(ensemble, rows, seed=seed)
    graph = Scorer(content).score(probes)
    native = np.asarray(native_margin(probes), np.float64)
    expected_margin, expected_score = calibration.apply(native)
    gaps = np.maximum(np.abs(graph.margin - expected_margin), np.abs(graph.score - expected_score))
    if native_score is not None:
        own = np.asarray(native_score(probes), np.float64)
        gaps = np.maximum(gaps, np.abs(own - NO_CALIBRATION.apply(native)[1]))
    worst = int(np.argmax(np.where(np.isnan(gaps), np.inf, gaps)))
    if not gaps[worst] <= EXPORT_TOLERANCE:
        raise ExportMismatchError(
            f"graph and native model differ by {gaps[worst]:.3g} (allowed {EXPORT_TOLERANCE:g}), margins "
            f"{graph.margin[worst]!r} and {expected_margin[worst]!r}: do not publish; report the row "
            f"{probes[worst].tolist()}"
        )
    return float(gaps[worst])


def probe_rows(ensemble: Ensemble, rows: Floats, *, seed: int) -> Floats:
    """Rows that show a wrong export: real ones, the same with holes, each threshold with its two neighbours, and each
    category of a set with values outside of it.

    Returns float64[M, F]; `rows` is float64[N, F] with N ≥ 1.
    """
    rng = np.random.default_rng(seed)
    real = rows[np.sort(rng.permutation(len(rows))[:_REAL_ROWS_MAX])]
    holes = np.where(rng.random(real.shape) < 0.3, np.nan, real)
    corners = np.repeat([[np.nan], [0.0], [-0.0], [np.inf], [-np.inf]], rows.shape[1], axis=1)
    edges = [_edge_rows(places, real, rng) for places in (_thresholds(ensemble, rng), _categories(ensemble, rng))]
    return np.concatenate([real, holes, corners, *edges])


def _thresholds(ensemble: Ensemble, rng: np.random.Generator) -> Floats:
    """(feature, value), float64[K, 2]: thresholds and both neighbours of each in double precision."""
    parts = [np.column_stack([t.feature, t.threshold])[_is_numeric(t)] for t in ensemble.trees]
    pairs = _some(np.unique(np.concatenate(parts), axis=0), rng)
    sides = [np.nextafter(pairs[:, 1], side) for side in (-np.inf, np.inf)]
    return np.concatenate([pairs, *(np.column_stack([pairs[:, 0], side]) for side in sides)])


def _categories(ensemble: Ensemble, rng: np.random.Generator) -> Floats:
    """(feature, value), float64[K, 2]: members of sets, and values that no set has."""
    found = [
        (feature, value)
        for tree in ensemble.trees
        for node, members in tree.members.items()
        for feature in (float(tree.feature[node]),)
        for value in (-1.0, *members.values, *(max(members.values, default=0.0) + more for more in _UNSEEN))
    ]
    return _some(np.unique(np.array(found, np.float64).reshape(-1, 2), axis=0), rng)


def _is_numeric(tree: Tree) -> Any:
    numeric = tree.feature != LEAF
    numeric[list(tree.members)] = False
    return numeric


def _some(pairs: Floats, rng: np.random.Generator) -> Floats:
    return pairs[np.sort(rng.permutation(len(pairs))[:_EDGE_THRESHOLDS_MAX])]


def _edge_rows(places: Floats, real: Floats, rng: np.random.Generator) -> Floats:
    """Real rows, each with one value changed to that of a place."""
    edges = real[rng.integers(0, len(real), len(places))].copy()
    edges[np.arange(len(places)), places[:, 0].astype(np.int64)] = places[:, 1]
    return edges


class _Attributes:
    """Fills the operator's attributes: inner nodes and leaves are numbered apart, over all trees."""

    def __init__(self) -> None:
        self.roots: list[int] = []
        self.nodes: list[tuple[int, float, int, bool, int, bool, int, bool]] = []
        self.leaves: list[float] = []
        self.covers: list[float] = []
        self.sets: list[float] = []

    def of(self, ensemble: Ensemble) -> dict[str, Any]:
        for tree in ensemble.trees:
            self._add(tree)
        feature, splits, modes, tracks, true_id, true_leaf, false_id, false_leaf = zip(*self.nodes, strict=True)
        attributes = {
            "n_targets": 1,
            "aggregate_function": 1,
            "post_transform": 0,
            "tree_roots": self.roots,
            "nodes_featureids": feature,
            "nodes_splits": helper.make_tensor("nodes_splits", TensorProto.DOUBLE, [len(splits)], splits),
            "nodes_modes": helper.make_tensor("nodes_modes", TensorProto.UINT8, [len(splits)], modes),
            "nodes_missing_value_tracks_true": [int(track) for track in tracks],
            "nodes_truenodeids": true_id,
            "nodes_trueleafs": [int(leaf) for leaf in true_leaf],
            "nodes_falsenodeids": false_id,
            "nodes_falseleafs": [int(leaf) for leaf in false_leaf],
            "leaf_targetids": [0] * len(self.leaves),
            "leaf_weights": helper.make_tensor("leaf_weights", TensorProto.DOUBLE, [len(self.leaves)], self.leaves),
        }
        if self.sets:
            sets = helper.make_tensor("membership_values", TensorProto.DOUBLE, [len(self.sets)], self.sets)
            attributes["membership_values"] = sets
        return attributes

    def _add(self, tree: Tree) -> None:
        self.roots.append(len(self.nodes))
        if tree.feature[0] == LEAF:
            self._add_constant(float(tree.value[0]), 0.0 if tree.cover is None else float(tree.cover[0]))
            return
        inner, leaves = np.flatnonzero(tree.feature != LEAF), np.flatnonzero(tree.feature == LEAF)
        position = {int(node): len(self.nodes) + i for i, node in enumerate(inner)}
        position |= {int(node): len(self.leaves) + i for i, node in enumerate(leaves)}
        for node in inner.tolist():
            left, right = int(tree.left[node]), int(tree.right[node])
            threshold, mode, missing_left = float(tree.threshold[node]), LEQ, bool(tree.missing_left[node])
            if node in tree.members and tree.members[node].values:
                threshold, mode = 0.0, MEMBER
                self._add_set(tree.members[node])
            elif node in tree.members:  # no value is in an empty set
                threshold, missing_left, left, right = np.inf, not missing_left, right, left
            sides = [part for side in (left, right) for part in (position[side], bool(tree.feature[side] == LEAF))]
            self.nodes.append((int(tree.feature[node]), threshold, mode, missing_left, *sides))  # type: ignore[arg-type]
        self.leaves.extend(float(value) for value in tree.value[leaves])
        self.covers.extend([] if tree.cover is None else (float(cover) for cover in tree.cover[leaves]))

    def _add_set(self, members: Members) -> None:
        """The members, NaN behind them. A member more than once is no other set, but one that ONNX Runtime compares by
        the integer part."""
        values = list(members.values)
        if members.by_integer_part and max(values) <= _EXACT_SET_MAX:
            values += [values[0]] * (_EXACT_SET_MAX + 1 - len(values))
        self.sets.extend([*values, np.nan])

    def _add_constant(self, value: float, cover: float) -> None:
        """A split that every row passes on one side, between two equal leaves.

        The operator's own form of a one-leaf tree (both sides name the same leaf) is misread by ONNX Runtime, which
        takes the leaf at the root's number among the nodes.
        """
        first = len(self.leaves)
        self.nodes.append((0, np.inf, LEQ, True, first, True, first + 1, True))
        self.leaves.extend([value, value])
        self.covers.extend([cover, 0.0])
