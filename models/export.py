"""LightGBM to ONNX in double precision, and the proof that both compute the same.

The graph holds one ai.onnx.ml `TreeEnsemble` (version 5) and a Sigmoid. `nodes_hitrates` is left out: ONNX Runtime
loads the double form only without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import onnx
from onnx import TensorProto, helper

from models._arrays import Floats
from models._operators import LEQ
from models.admission import read_graph
from models.errors import ExportMismatchError, TrainingError
from models.lightgbm_text import read_lightgbm
from models.scorer import Scorer
from models.trees import COVERS_PROPERTY, FEATURES, LEAF, MARGIN, SCORE, Ensemble, Tree, read_trees

EXPORT_TOLERANCE = 1e-6
_OPSETS = {"": 21, "ai.onnx.ml": 5}
_IR_VERSION = 10
_EDGE_THRESHOLDS_MAX = 2_000
_REAL_ROWS_MAX = 5_000


class TextModel(Protocol):
    """What is needed of a LightGBM booster to export it."""

    def model_to_string(self) -> str: ...


def export_lightgbm(booster: TextModel) -> bytes:
    """The booster as a serialised ONNX model: input `features` double[N, F], outputs `margin` double[N, 1] (log-odds)
    and `score` double[N, 1]. The same booster gives the same bytes.

    Raises UnsupportedModelError for other objectives than binary, categorical splits and linear leaves.
    """
    return export_trees(read_lightgbm(booster.model_to_string()))


def export_trees(ensemble: Ensemble) -> bytes:
    """Plain trees as a serialised ONNX model, see `export_lightgbm`."""
    if not ensemble.trees:
        raise TrainingError("the model has no trees: train at least one iteration")
    attributes = _Attributes()
    trees = helper.make_node("TreeEnsemble", [FEATURES], [MARGIN], domain="ai.onnx.ml", **attributes.of(ensemble))
    graph = helper.make_graph(
        [trees, helper.make_node("Sigmoid", [MARGIN], [SCORE])],
        "actor_risk",
        [helper.make_tensor_value_info(FEATURES, TensorProto.DOUBLE, ["N", ensemble.feature_count])],
        [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["N", 1]) for name in (MARGIN, SCORE)],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS.items()]
    model = helper.make_model(graph, opset_imports=opsets, producer_name="actor-risk", ir_version=_IR_VERSION)
    if ensemble.has_covers:
        helper.set_model_props(model, {COVERS_PROPERTY: " ".join(f"{cover:.17g}" for cover in attributes.covers)})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def verify_export(native_margin: Callable[[Floats], Floats], content: bytes, rows: Floats, *, seed: int = 0) -> float:
    """The largest difference of margin or score between the native model and the graph, over real rows, rows at and
    beside every threshold, and rows with missing values.

    `native_margin` maps float64[N, F] to log-odds float64[N].
    Raises ExportMismatchError above EXPORT_TOLERANCE.
    """
    probes = probe_rows(read_trees(read_graph(content)), rows, seed=seed)
    graph = Scorer(content).score(probes)
    native = np.asarray(native_margin(probes), np.float64)
    with np.errstate(over="ignore"):
        native_score = 1.0 / (1.0 + np.exp(-native))
    gaps = np.maximum(np.abs(graph.margin - native), np.abs(graph.score - native_score))
    worst = int(np.argmax(gaps))
    if not gaps[worst] <= EXPORT_TOLERANCE:
        raise ExportMismatchError(
            f"graph and native model differ by {gaps[worst]:.3g} (allowed {EXPORT_TOLERANCE:g}), margins "
            f"{graph.margin[worst]!r} and {native[worst]!r}: do not publish; report the row {probes[worst].tolist()}"
        )
    return float(gaps[worst])


def probe_rows(ensemble: Ensemble, rows: Floats, *, seed: int) -> Floats:
    """Rows that show a wrong export: real ones, the same with holes, and each threshold with its two neighbours.

    Returns float64[M, F]; `rows` is float64[N, F] with N ≥ 1.
    """
    rng = np.random.default_rng(seed)
    real = rows[np.sort(rng.permutation(len(rows))[:_REAL_ROWS_MAX])]
    holes = np.where(rng.random(real.shape) < 0.3, np.nan, real)
    corners = np.repeat([[np.nan], [0.0], [-0.0], [np.inf], [-np.inf]], rows.shape[1], axis=1)
    return np.concatenate([real, holes, corners, _edge_rows(ensemble, real, rng)])


def _edge_rows(ensemble: Ensemble, real: Floats, rng: np.random.Generator) -> Floats:
    pairs = np.unique(
        np.concatenate([np.column_stack([t.feature, t.threshold])[t.feature != LEAF] for t in ensemble.trees]), axis=0
    )
    pairs = pairs[np.sort(rng.permutation(len(pairs))[:_EDGE_THRESHOLDS_MAX])]
    features, at = pairs[:, 0].astype(np.int64), pairs[:, 1]
    values = np.concatenate([at, np.nextafter(at, -np.inf), np.nextafter(at, np.inf)])
    edges = real[rng.integers(0, len(real), values.size)].copy()
    edges[np.arange(values.size), np.tile(features, 3)] = values
    return edges


class _Attributes:
    """Fills the operator's attributes: inner nodes and leaves are numbered apart, over all trees."""

    def __init__(self) -> None:
        self.roots: list[int] = []
        self.nodes: list[tuple[int, float, bool, int, bool, int, bool]] = []
        self.leaves: list[float] = []
        self.covers: list[float] = []

    def of(self, ensemble: Ensemble) -> dict[str, Any]:
        for tree in ensemble.trees:
            self._add(tree)
        feature, splits, tracks, true_id, true_leaf, false_id, false_leaf = zip(*self.nodes, strict=True)
        return {
            "n_targets": 1,
            "aggregate_function": 1,
            "post_transform": 0,
            "tree_roots": self.roots,
            "nodes_featureids": feature,
            "nodes_splits": helper.make_tensor("nodes_splits", TensorProto.DOUBLE, [len(splits)], splits),
            "nodes_modes": helper.make_tensor("nodes_modes", TensorProto.UINT8, [len(splits)], [LEQ] * len(splits)),
            "nodes_missing_value_tracks_true": [int(track) for track in tracks],
            "nodes_truenodeids": true_id,
            "nodes_trueleafs": [int(leaf) for leaf in true_leaf],
            "nodes_falsenodeids": false_id,
            "nodes_falseleafs": [int(leaf) for leaf in false_leaf],
            "leaf_targetids": [0] * len(self.leaves),
            "leaf_weights": helper.make_tensor("leaf_weights", TensorProto.DOUBLE, [len(self.leaves)], self.leaves),
        }

    def _add(self, tree: Tree) -> None:
        self.roots.append(len(self.nodes))
        if tree.feature[0] == LEAF:
            self._add_constant(float(tree.value[0]), tree.cover)
            return
        inner = np.flatnonzero(tree.feature != LEAF)
        position = {int(node): len(self.nodes) + i for i, node in enumerate(inner)}
        position |= {int(n): len(self.leaves) + i for i, n in enumerate(np.flatnonzero(tree.feature == LEAF))}
        for node in inner:
            left, right = int(tree.left[node]), int(tree.right[node])
            self.nodes.append(
                (
                    int(tree.feature[node]),
                    float(tree.threshold[node]),
                    bool(tree.missing_left[node]),
                    position[left],
                    bool(tree.feature[left] == LEAF),
                    position[right],
                    bool(tree.feature[right] == LEAF),
                )
            )
        self.leaves.extend(float(value) for value in tree.value[tree.feature == LEAF])
        if tree.cover is not None:
            self.covers.extend(float(cover) for cover in tree.cover[tree.feature == LEAF])

    def _add_constant(self, value: float, cover: Floats | None) -> None:
        """A split that every row passes on one side, between two equal leaves.

        The operator's own form of a one-leaf tree (both sides name the same leaf) is misread by ONNX Runtime, which
        takes the leaf at the root's number among the nodes.
        """
        first = len(self.leaves)
        self.nodes.append((0, np.inf, True, first, True, first + 1, True))
        self.leaves.extend([value, value])
        if cover is not None:
            self.covers.extend([float(cover[0]), 0.0])
