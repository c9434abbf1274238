"""Small models, bundles and data for the tests of `models`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from models import BundleDraft, Feature, ModelCard, ModelStore, Service, Thresholds
from models._operators import Members
from models.export import export_trees
from models.training_set import TrainingSet
from models.trees import LEAF, Ensemble, Tree, TreeBuilder

Floats = NDArray[np.float64]

GRID = (-np.inf, -2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 2.0, np.inf)
"""Few values, so that rows often meet a threshold exactly."""


@st.composite
def trees(draw: st.DrawFn, feature_count: int, depth: int, sets: bool = False, covers: bool = False) -> Tree:
    builder = TreeBuilder()
    waiting = [(builder.reserve(), depth)]
    while waiting:
        node, left_over = waiting.pop()
        if left_over == 0 or draw(st.integers(0, 4)) == 0:
            builder.set_leaf(node, draw(st.floats(-2, 2, width=32)), draw(st.integers(1, 9)) if covers else None)
            continue
        left, right = builder.reserve(), builder.reserve()
        feature, threshold = draw(st.integers(0, feature_count - 1)), draw(st.sampled_from(GRID))
        if sets and draw(st.booleans()):
            members = draw(st.sets(st.sampled_from([0.0, 1.0, 2.0, 3.0]), min_size=1))
            kind = Members(tuple(sorted(members)), draw(st.booleans()))
            builder.set_members(node, feature, kind, draw(st.booleans()), left, right)
        else:
            builder.set_split(node, feature, threshold, draw(st.booleans()), left, right)
        waiting += [(left, left_over - 1), (right, left_over - 1)]
    return builder.build()


@st.composite
def ensembles(
    draw: st.DrawFn, feature_count: int = 4, depth: int = 5, sets: bool = False, covers: bool = False
) -> Ensemble:
    one = trees(feature_count, depth, sets, covers)
    return Ensemble(feature_count, tuple(draw(st.lists(one, min_size=1, max_size=3))))


def matrices(rows: int, feature_count: int = 4) -> st.SearchStrategy[Floats]:
    """Values on and beside the thresholds, and missing ones."""
    values = [*GRID, *np.nextafter(GRID, 9.0), 1e-35, -1e-35, float("nan"), float("nan"), float("nan")]
    row = st.lists(st.sampled_from(values), min_size=feature_count, max_size=feature_count)
    return st.lists(row, min_size=1, max_size=rows).map(lambda drawn: np.array(drawn, np.float64))


def walk(tree: Tree, row: Floats) -> float:
    """The oracle of what a tree computes."""
    node = 0
    while tree.feature[node] != LEAF:
        x = row[tree.feature[node]]
        if np.isnan(x):
            left = bool(tree.missing_left[node])
        else:
            left = tree.members[node].holds(float(x)) if node in tree.members else x <= tree.threshold[node]
        node = int(tree.left[node] if left else tree.right[node])
    return float(tree.value[node])


def margins(ensemble: Ensemble, matrix: Floats) -> Floats:
    return np.array([sum(walk(tree, row) for tree in ensemble.trees) for row in matrix])


def stump(feature_count: int = 2, *, low: float = -1.0, high: float = 2.0) -> Ensemble:
    """`high` when feature 0 is above 0.5, else `low`; a missing feature 0 counts as low."""
    builder = TreeBuilder()
    root, left, right = builder.reserve(), builder.reserve(), builder.reserve()
    builder.set_split(root, 0, 0.5, True, left, right)
    builder.set_leaf(left, low)
    builder.set_leaf(right, high)
    return Ensemble(feature_count, (builder.build(),))


def draft(name: str = "ad_click_risk", *, high: float = 2.0, missing: float | None = None) -> BundleDraft:
    card = ModelCard(
        model_name=name,
        label="the click is invalid traffic",
        service=Service(name="ad_click_risk", fingerprint="abc"),
        features=(
            Feature(ref="ip_clicks:count_1h", code="IP_CLICKS_1H", missing=missing),
            Feature(ref="device:age_days", code="DEVICE_AGE"),
        ),
        thresholds=Thresholds(review=0.5, block=0.9),
        calibration="none",
    )
    rows = np.array([[0.0, 1.0], [1.0, 2.0], [np.nan, np.nan]])
    return BundleDraft(card, export_trees(stump(high=high)), rows[:2], "two rows", rows)


def published(root: Path, name: str = "ad_click_risk") -> tuple[ModelStore, str, Path]:
    """A store with one version of one model: the store, the version, and its directory."""
    store = ModelStore(root)
    version = store.publish(draft(name))
    return store, version, root / name / version


def training_set(rows: int = 3000, *, seed: int = 1) -> TrainingSet:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(rows, 5))
    matrix[:, 1] = np.round(matrix[:, 1])
    matrix[rng.random(matrix.shape) < 0.1] = np.nan
    signal = np.nan_to_num(matrix[:, 0]) + np.isnan(matrix[:, 2]) + rng.normal(scale=0.7, size=rows)
    labels = (signal > 1.0).astype(np.int8)
    refs = tuple(f"view:feature_{i}" for i in range(5))
    return TrainingSet(refs, matrix, labels, np.arange(rows, dtype=np.int64) * 60_000, label="abuse")


def grown(seed: int, *, feature_count: int = 12, depth: int = 6, trees: int = 20) -> Ensemble:
    """Full random trees, deeper and wider than the definition can check."""
    rng = np.random.default_rng(seed)
    built = []
    for _ in range(trees):
        builder = TreeBuilder()
        waiting = [(builder.reserve(), depth)]
        while waiting:
            node, left_over = waiting.pop()
            if not left_over:
                builder.set_leaf(node, float(rng.normal()), float(rng.integers(1, 50)))
                continue
            left, right = builder.reserve(), builder.reserve()
            builder.set_split(
                node, int(rng.integers(feature_count)), float(rng.normal()), bool(rng.integers(2)), left, right
            )
            waiting += [(left, left_over - 1), (right, left_over - 1)]
        built.append(builder.build())
    return Ensemble(feature_count, tuple(built))


def with_holes(rng: np.random.Generator, rows: int) -> Floats:
    matrix = rng.normal(size=(rows, 12))
    matrix[rng.random(matrix.shape) < 0.2] = np.nan
    return matrix


def shap_trees(ensemble: Ensemble) -> list[dict[str, Any]]:
    """The trees as the shap library takes them."""
    return [
        {
            "children_left": tree.left,
            "children_right": tree.right,
            "children_default": np.where(tree.missing_left, tree.left, tree.right),
            "features": np.where(tree.feature == LEAF, -2, tree.feature),
            "thresholds": tree.threshold.copy(),
            "values": tree.value.reshape(-1, 1).copy(),
            "node_sample_weight": np.ones(tree.feature.size) if tree.cover is None else tree.cover.copy(),
        }
        for tree in ensemble.trees
    ]


def graph_of(
    *nodes: onnx.NodeProto, initializers: list[onnx.TensorProto] | None = None, answer: str = "y", columns: int = 1
) -> onnx.ModelProto:
    """A model with one input `x` float[N, 2] and one output."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info(answer, TensorProto.FLOAT, ["N", columns])],
        initializers or [],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def longs(name: str, *values: int) -> onnx.TensorProto:
    return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)


def tree_classifier(**changes: object) -> onnx.ModelProto:
    """One tree of one split, as a classifier of two classes whose weights are all of the first one's number: 2 when
    feature 0 is above 0.5, else -1, is the second class's log-odds."""
    parts: dict[str, object] = {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [0, 0, 0],
        "nodes_values": [0.5, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "class_treeids": [0, 0],
        "class_nodeids": [1, 2],
        "class_ids": [0, 0],
        "class_weights": [-1.0, 2.0],
        "classlabels_int64s": [0, 1],
        "post_transform": "LOGISTIC",
    }
    node = helper.make_node("TreeEnsembleClassifier", ["x"], ["label", "y"], domain="ai.onnx.ml", **(parts | changes))
    return graph_of(node, columns=2)
