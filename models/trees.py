"""The trees of an ONNX graph as plain arrays: what is scored is what is explained.

Operator: ai.onnx.ml `TreeEnsemble`, version 5 (https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsemble.html).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from models._arrays import Bools, Floats, Ints
from models.errors import UnsupportedModelError

FEATURES, MARGIN, SCORE = "features", "margin", "score"
"""Names of the input and the two outputs of every graph that is served."""

LEQ, LT, GTE, GT = range(4)
LEAF = -1
AGGREGATE_SUM, POST_NONE = 1, 0


@dataclass(frozen=True, slots=True)
class Tree:
    """One binary tree, node 0 is the root. A row goes left when `x <= threshold`, or, for NaN, when `missing_left`.

    feature     int32[n], LEAF (-1) at a leaf
    threshold   float64[n]
    missing_left bool[n]
    left, right int32[n], indices of nodes
    value       float64[n], the leaf's share of the margin (log-odds)
    """

    feature: Ints
    threshold: Floats
    missing_left: Bools
    left: Ints
    right: Ints
    value: Floats

    @property
    def leaf_count(self) -> int:
        return int(np.count_nonzero(self.feature == LEAF))


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Trees whose leaf values add up to the margin of a row of `feature_count` features."""

    feature_count: int
    trees: tuple[Tree, ...]


@dataclass(slots=True)
class TreeBuilder:
    """Collects the nodes of one tree in any order; `build` freezes them."""

    rows: list[tuple[int, float, bool, int, int, float]] = field(default_factory=list)

    def reserve(self) -> int:
        self.rows.append((LEAF, 0.0, False, LEAF, LEAF, 0.0))
        return len(self.rows) - 1

    def set_leaf(self, node: int, value: float) -> None:
        self.rows[node] = (LEAF, 0.0, False, LEAF, LEAF, value)

    def set_split(self, node: int, feature: int, threshold: float, missing_left: bool, left: int, right: int) -> None:
        self.rows[node] = (feature, threshold, missing_left, left, right, 0.0)

    def build(self) -> Tree:
        feature, threshold, missing_left, left, right, value = zip(*self.rows, strict=True)
        return Tree(
            np.array(feature, np.int32),
            np.array(threshold, np.float64),
            np.array(missing_left, np.bool_),
            np.array(left, np.int32),
            np.array(right, np.int32),
            np.array(value, np.float64),
        )


def read_trees(model: onnx.ModelProto) -> Ensemble:
    """The trees whose sum is the graph's `margin`.

    Raises UnsupportedModelError unless `margin` is one TreeEnsemble (version 5) of the input `features`, with one
    target, summed, without post-transform, and with ordered comparisons only.
    """
    attributes = {a.name: _attribute(a) for a in _tree_node(model.graph).attribute}
    plain = (attributes.get("aggregate_function", AGGREGATE_SUM), attributes.get("post_transform", POST_NONE))
    if plain != (AGGREGATE_SUM, POST_NONE) or attributes.get("n_targets") != 1:
        raise UnsupportedModelError("only one target, summed, without post-transform, is explained: export log-odds")
    nodes = _Nodes.of(attributes)
    feature_count = _feature_count(model.graph)
    roots = np.asarray(attributes["tree_roots"], np.int64)
    nodes.check(roots, feature_count)
    return Ensemble(feature_count, tuple(_tree(nodes, int(root)) for root in roots))


def _tree_node(graph: onnx.GraphProto) -> onnx.NodeProto:
    makers = [node for node in graph.node if MARGIN in node.output]
    if len(makers) != 1 or (makers[0].domain, makers[0].op_type) != ("ai.onnx.ml", "TreeEnsemble"):
        raise UnsupportedModelError(
            f"the output {MARGIN!r} is not made by one ai.onnx.ml TreeEnsemble (version 5): "
            "export the model with models.export"
        )
    if list(makers[0].input) != [FEATURES]:
        raise UnsupportedModelError(
            f"the trees do not read the input {FEATURES!r} itself: put preparation into features"
        )
    return makers[0]


def _feature_count(graph: onnx.GraphProto) -> int:
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name == FEATURES and len(dims) == 2 and dims[1].dim_value > 0:
            return int(dims[1].dim_value)
    raise UnsupportedModelError(f"the graph needs an input {FEATURES!r} of shape [N, number of features]")


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


@dataclass(frozen=True, slots=True)
class _Nodes:
    """The operator's `nodes_*` and `leaf_*` attributes with every comparison rewritten as `x <= threshold`."""

    feature: NDArray[np.int64]
    threshold: Floats
    missing_left: Bools
    left: NDArray[np.int64]
    left_is_leaf: Bools
    right: NDArray[np.int64]
    right_is_leaf: Bools
    leaf_value: Floats

    def check(self, roots: NDArray[np.int64], feature_count: int) -> None:
        """Raises UnsupportedModelError when a number points outside of the features, the nodes or the leaves."""
        inside = (
            _within(roots, self.feature.size)
            and _within(self.feature, feature_count)
            and _within(self.left, np.where(self.left_is_leaf, self.leaf_value.size, self.feature.size))
            and _within(self.right, np.where(self.right_is_leaf, self.leaf_value.size, self.feature.size))
        )
        if not inside:
            raise UnsupportedModelError("a node points at a feature, node or leaf that is not there: export it again")

    @classmethod
    def of(cls, a: dict[str, Any]) -> _Nodes:
        modes = np.asarray(a["nodes_modes"], np.int64)
        if np.any(modes > GT):
            raise UnsupportedModelError("a node tests equality or membership: encode categories as numbers and retrain")
        splits = np.asarray(a["nodes_splits"])
        if splits.dtype != np.float64:
            raise UnsupportedModelError("the trees are not in double precision: export the model with models.export")
        tracks = np.asarray(a.get("nodes_missing_value_tracks_true") or np.zeros(modes.size), np.bool_)
        # `x < t` is `x <= the double before t`; `>=` and `>` are the negations of `<` and `<=`, so their sides swap.
        threshold = np.where((modes == LT) | (modes == GTE), np.nextafter(splits, -np.inf), splits)
        swap = modes >= GTE
        true_id, false_id = (np.asarray(a[f"nodes_{side}nodeids"], np.int64) for side in ("true", "false"))
        true_leaf, false_leaf = (np.asarray(a[f"nodes_{side}leafs"], np.bool_) for side in ("true", "false"))
        return cls(
            np.asarray(a["nodes_featureids"], np.int64),
            threshold,
            np.where(swap, ~tracks, tracks),
            np.where(swap, false_id, true_id),
            np.where(swap, false_leaf, true_leaf),
            np.where(swap, true_id, false_id),
            np.where(swap, true_leaf, false_leaf),
            np.asarray(a["leaf_weights"], np.float64),
        )


def _within(positions: NDArray[np.int64], end: int | NDArray[np.int64]) -> bool:
    return bool(np.all((positions >= 0) & (positions < end)))


def _tree(nodes: _Nodes, root: int) -> Tree:
    builder = TreeBuilder()
    waiting = [(root, False, builder.reserve())]
    while waiting:
        source, is_leaf, target = waiting.pop()
        if len(builder.rows) > 2 * nodes.feature.size + 1:
            raise UnsupportedModelError("the graph's nodes share children or form a loop: they must be trees")
        if is_leaf:
            builder.set_leaf(target, float(nodes.leaf_value[source]))
            continue
        left, right = builder.reserve(), builder.reserve()
        threshold, missing_left = float(nodes.threshold[source]), bool(nodes.missing_left[source])
        builder.set_split(target, int(nodes.feature[source]), threshold, missing_left, left, right)
        waiting.append((int(nodes.left[source]), bool(nodes.left_is_leaf[source]), left))
        waiting.append((int(nodes.right[source]), bool(nodes.right_is_leaf[source]), right))
    return builder.build()
