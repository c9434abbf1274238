"""Trees are read as ONNX Runtime computes them: operators, modes, precisions, missing values, targets, aggregates."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from models import InputError, UnsupportedModelError
from models._operators import check_shape
from models.trees import TARGET_PROPERTY, read_trees
from tests.models.builders import Floats, margins

MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
FLOAT, DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE
DTYPES = {FLOAT: np.float32, DOUBLE: np.float64}


def model_of(node: onnx.NodeProto, version: int, inputs: int, outputs: int, **metadata: str) -> onnx.ModelProto:
    graph = helper.make_graph(
        [node],
        "trees",
        [helper.make_tensor_value_info("features", inputs, ["N", 2])],
        [helper.make_tensor_value_info("margin", outputs, ["N", None])],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", version)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    helper.set_model_props(model, {TARGET_PROPERTY: "0"} | metadata)
    return model


def scored(model: onnx.ModelProto, rows: Floats) -> Floats:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    dtype = DTYPES[model.graph.input[0].type.tensor_type.elem_type]
    with np.errstate(over="ignore"):
        fed = rows.astype(dtype)
    return np.asarray(session.run(["margin"], {"features": fed})[0], np.float64)


def read(model: onnx.ModelProto, rows: Floats) -> Floats:
    """The margins of rows by the trees as they are read from the model."""
    ensemble = read_trees(model)
    with np.errstate(over="ignore"):
        seen = rows.astype(np.float32).astype(np.float64) if ensemble.single_precision else rows
    return margins(ensemble, seen)


def edges(thresholds: Floats) -> Floats:
    """Every pair of: thresholds, their neighbours in both precisions, what is special, and missing."""
    single = thresholds.astype(np.float32)
    beside = [np.nextafter(thresholds, s) for s in (-9.0, 9.0)]
    beside += [np.nextafter(single, np.float32(s)).astype(np.float64) for s in (-9, 9)]
    special = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5, -0.5, 31.0, 1e10]
    values = np.unique(np.concatenate([thresholds, *beside, special]))
    return np.array([[a, b] for a in values for b in values])


def regressor(
    modes: list[str], tracks: list[int] | None, values: list[float], inputs: int, **extra: object
) -> onnx.NodeProto:
    """A full tree of three nodes on features 0, 1, 0; leaves give 1, 2, 4, 8 to target 0 and -1 to target 1."""
    leaves = [3, 4, 5, 6]
    missing = {} if tracks is None else {"nodes_missing_value_tracks_true": [*tracks, 0, 0, 0, 0]}
    all_values = [*values, 0.0, 0.0, 0.0, 0.0]
    splits: dict[str, object] = {"nodes_values": all_values}
    weights: dict[str, object] = {"target_weights": [1.0, 2.0, 4.0, 8.0, -1.0, -1.0, -1.0, -1.0]}
    if inputs == DOUBLE:
        splits = {"nodes_values_as_tensor": helper.make_tensor("v", DOUBLE, [7], all_values)}
        weights = {"target_weights_as_tensor": helper.make_tensor("w", DOUBLE, [8], weights["target_weights"])}
    given = {
        "nodes_treeids": [0] * 7,
        "nodes_nodeids": list(range(7)),
        "nodes_featureids": [0, 1, 0, 0, 0, 0, 0],
        "nodes_modes": [*modes, *["LEAF"] * 4],
        "nodes_truenodeids": [1, 3, 5, 0, 0, 0, 0],
        "nodes_falsenodeids": [2, 4, 6, 0, 0, 0, 0],
        "target_treeids": [0] * 8,
        "target_nodeids": leaves * 2,
        "target_ids": [0] * 4 + [1] * 4,
        "n_targets": 2,
    }
    node = given | splits | weights | missing | extra
    return helper.make_node("TreeEnsembleRegressor", ["features"], ["margin"], domain="ai.onnx.ml", **node)


@pytest.mark.parametrize("inputs", [FLOAT, DOUBLE])
@pytest.mark.parametrize("tracks", [None, [0, 0, 0], [1, 0, 1], [0, 1, 0]])
@pytest.mark.parametrize("modes", [[m] * 3 for m in MODES] + [list(MODES[:3]), list(MODES[3:]), list(MODES[::2])])
def test_every_mode_is_read_as_the_runtime_computes_it(modes: list[str], tracks: list[int] | None, inputs: int) -> None:
    values = [0.1, 2.0, 0.3]
    model = model_of(regressor(modes, tracks, values, inputs), 3, inputs, FLOAT)
    rows = edges(np.array(values))
    assert read_trees(model).single_precision == (inputs == FLOAT)
    np.testing.assert_array_equal(read(model, rows), scored(model, rows)[:, 0])


GRID = (-np.inf, -1.0, -0.0, 0.0, 0.5, 1.0, 2.0, 3.0, 30.0, 32.0, 33.0, np.inf)
"""Thresholds that ONNX Runtime may join when they are tested for equality, and those at the ends of the number line."""
ROWS = np.array([[value, 0.0] for value in [x[0] for x in edges(np.array(GRID)) if x[1] == 0.5]])


@st.composite
def shapes(draw: st.DrawFn, depth: int = 4) -> list[tuple[int, int] | None]:
    """A tree as the two children of each node, None at a leaf; the root is no leaf."""
    children: list[tuple[int, int] | None] = [None]
    waiting = [(0, depth)]
    while waiting:
        node, left_over = waiting.pop()
        if node and (not left_over or draw(st.integers(0, 2)) == 0):
            continue
        children[node] = len(children), len(children) + 1
        waiting += [(len(children), left_over - 1), (len(children) + 1, left_over - 1)]
        children += [None, None]
    return children


def lists(values: st.SearchStrategy[float], size: int) -> st.SearchStrategy[list[float]]:
    return st.lists(values, min_size=size, max_size=size)


WEIGHTS = st.sampled_from([0.0, 1.0, 2.0])
"""Few, so that leaves are often equal."""


@st.composite
def of_version_3(draw: st.DrawFn, inputs: int, targets: int, *, classes: bool) -> onnx.NodeProto:
    """One tree on feature 0; a leaf has no weight, one, or more than one, also of the same target."""
    shape = draw(shapes())
    size = len(shape)
    modes = draw(st.sampled_from([MODES, MODES[4:], MODES[4:5]]))
    leaves = draw(st.permutations([i for i, sides in enumerate(shape) if sides is None]))
    weighed = [leaf for leaf in leaves for _ in range(draw(st.sampled_from([1, 1, 1, 0, 2])))] or leaves
    weights = draw(lists(WEIGHTS, len(weighed)))
    kind, op_type = ("class", "TreeEnsembleClassifier") if classes else ("target", "TreeEnsembleRegressor")
    splits = draw(lists(st.sampled_from(GRID), size))
    numbers = {"nodes_values": splits, f"{kind}_weights": weights}
    if inputs == DOUBLE:
        numbers = {f"{name}_as_tensor": helper.make_tensor("t", DOUBLE, [len(n)], n) for name, n in numbers.items()}
    given: dict[str, object] = numbers | {
        "nodes_treeids": [0] * size,
        "nodes_nodeids": list(range(size)),
        "nodes_featureids": [0] * size,
        "nodes_modes": [draw(st.sampled_from(modes)) if sides else "LEAF" for sides in shape],
        "nodes_truenodeids": [sides[0] if sides else 0 for sides in shape],
        "nodes_falsenodeids": [sides[1] if sides else 0 for sides in shape],
        "nodes_missing_value_tracks_true": [int(draw(st.booleans())) for _ in shape],
        f"{kind}_treeids": [0] * len(weighed),
        f"{kind}_nodeids": weighed,
        f"{kind}_ids": [draw(st.integers(0, targets - 1)) for _ in weighed],
    }
    given |= {"classlabels_int64s": list(range(targets))} if classes else {"n_targets": targets}
    outputs = ["label", "margin"] if classes else ["margin"]
    return helper.make_node(op_type, ["features"], outputs, domain="ai.onnx.ml", **given)


@st.composite
def of_version_5(draw: st.DrawFn, inputs: int, targets: int) -> onnx.NodeProto:
    """One tree on feature 0."""
    shape = draw(shapes())
    inner, leaves = ([i for i, sides in enumerate(shape) if (sides is None) == leaf] for leaf in (False, True))
    number = {node: i for part in (inner, leaves) for i, node in enumerate(part)}
    modes = draw(lists(st.sampled_from(draw(st.sampled_from([range(7), (4, 6), (6,)]))), len(inner)))
    members = st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, 30.0, 31.0, -1.0]), min_size=1, max_size=3)
    sets = [value for mode in modes if mode == 6 for value in (*draw(members), np.nan)]
    sides = [sides for sides in shape if sides]
    given = {
        "n_targets": targets,
        "tree_roots": [0],
        "nodes_featureids": [0] * len(inner),
        "nodes_modes": helper.make_tensor("m", TensorProto.UINT8, [len(inner)], modes),
        "nodes_splits": helper.make_tensor("s", inputs, [len(inner)], draw(lists(st.sampled_from(GRID), len(inner)))),
        "nodes_missing_value_tracks_true": [int(draw(st.booleans())) for _ in inner],
        "nodes_truenodeids": [number[true] for true, _ in sides],
        "nodes_trueleafs": [int(shape[true] is None) for true, _ in sides],
        "nodes_falsenodeids": [number[false] for _, false in sides],
        "nodes_falseleafs": [int(shape[false] is None) for _, false in sides],
        "leaf_targetids": [draw(st.integers(0, targets - 1)) for _ in leaves],
        "leaf_weights": helper.make_tensor("w", inputs, [len(leaves)], draw(lists(WEIGHTS, len(leaves)))),
    }
    given |= {"membership_values": helper.make_tensor("v", inputs, [len(sets)], sets)} if sets else {}
    return helper.make_node("TreeEnsemble", ["features"], ["margin"], domain="ai.onnx.ml", **given)


@given(st.data(), st.sampled_from([FLOAT, DOUBLE]), st.sampled_from([1, 2]), st.sampled_from(["3", "classes", "5"]))
@settings(max_examples=250, deadline=None)
def test_any_tree_is_read_as_the_runtime_computes_it_or_refused(
    data: st.DataObject, inputs: int, targets: int, kind: str
) -> None:
    """Thresholds at both infinities, missing values, leaves without weights and with several, tests that are joined."""
    version = 5 if kind == "5" else 3
    inputs = FLOAT if kind == "classes" else inputs
    drawn = of_version_5(inputs, targets) if version == 5 else of_version_3(inputs, targets, classes=kind == "classes")
    node = data.draw(drawn)
    model = model_of(node, version, inputs, inputs if version == 5 else FLOAT)
    try:
        check_shape(node, 2)
        found = read(model, ROWS)
    except UnsupportedModelError:
        return
    answers = scored(model, ROWS)
    positive = kind == "classes" and len(set(attributes_of(node)["class_ids"])) == 1  # then the other is its complement
    np.testing.assert_array_equal(found, answers[:, targets - 1 if positive else 0])


def attributes_of(node: onnx.NodeProto) -> dict[str, list[int]]:
    return {attribute.name: list(attribute.ints) for attribute in node.attribute}


@pytest.mark.parametrize("weights", [{3: 1.0, 4: 2.0, 5: 4.0, 6: 8.0}, {3: 1.0, 6: 8.0}, {4: 2.0}])
def test_a_leaf_without_a_weight_gives_what_the_runtime_takes_for_it(weights: dict[int, float]) -> None:
    given = {
        "target_treeids": [0] * len(weights),
        "target_nodeids": list(weights),
        "target_ids": [0] * len(weights),
        "target_weights": list(weights.values()),
        "nodes_values": [0.5, 1.0, 2.0, 0.0, 0.25, 0.5, 0.75],
        "n_targets": 1,
    }
    model = model_of(regressor([MODES[0]] * 3, None, [0.5, 1.0, 2.0], FLOAT, **given), 3, FLOAT, FLOAT)
    rows = edges(np.array([0.5, 1.0, 2.0]))
    np.testing.assert_array_equal(read(model, rows), scored(model, rows)[:, 0])


def equalities(tracks: tuple[int, int], weights: list[float], ids: list[int]) -> onnx.NodeProto:
    """Is feature 0 equal to 1? To 2? Weights are of leaves 1, 3, 4, then of the same for another target."""
    given = {
        "nodes_treeids": [0] * 5,
        "nodes_nodeids": list(range(5)),
        "nodes_featureids": [0] * 5,
        "nodes_modes": ["BRANCH_EQ", "LEAF", "BRANCH_EQ", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 3, 0, 0],
        "nodes_falsenodeids": [2, 0, 4, 0, 0],
        "nodes_missing_value_tracks_true": [tracks[0], 0, tracks[1], 0, 0],
        "nodes_values": [1.0, 0.0, 2.0, 0.0, 0.0],
        "target_treeids": [0] * len(weights),
        "target_nodeids": ([1, 3, 4] * 2)[: len(weights)],
        "target_ids": ids,
        "target_weights": weights,
        "n_targets": max(ids) + 1,
    }
    return helper.make_node("TreeEnsembleRegressor", ["features"], ["margin"], domain="ai.onnx.ml", **given)


@pytest.mark.parametrize(
    ("tracks", "weights", "ids"),
    [((0, 1), [1.0, 1.0, 0.0], [0, 0, 0]), ((0, 0), [1.0, 1.0, 0.0, 1.0, 2.0, 0.0], [0, 0, 0, 1, 1, 1])],
)
def test_tests_that_the_runtime_joins_and_should_not_are_refused(
    tracks: tuple[int, int], weights: list[float], ids: list[int]
) -> None:
    with pytest.raises(UnsupportedModelError, match="makes one test of two"):
        read_trees(model_of(equalities(tracks, weights, ids), 3, FLOAT, FLOAT))


@pytest.mark.parametrize("tracks", [(0, 0), (1, 0), (1, 1)])
def test_tests_that_the_runtime_joins_rightly_are_read(tracks: tuple[int, int]) -> None:
    model = model_of(equalities(tracks, [1.0, 1.0, 0.0], [0, 0, 0]), 3, FLOAT, FLOAT)
    np.testing.assert_array_equal(read(model, ROWS), scored(model, ROWS)[:, 0])


@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE"])
def test_targets_means_and_base_values_are_read(target: int, aggregate: str) -> None:
    node = regressor([MODES[0]] * 3, None, [0.1, 2.0, 0.3], FLOAT, aggregate_function=aggregate, base_values=[0.5, 7.0])
    model = model_of(node, 3, FLOAT, FLOAT, **{TARGET_PROPERTY: str(target)})
    ensemble = read_trees(model)
    rows = np.array([[0.0, 0.0], [1.0, 3.0], [np.nan, np.nan]])
    np.testing.assert_array_equal(margins(ensemble, rows) + ensemble.constant, scored(model, rows)[:, target])


@pytest.mark.parametrize("inputs", [FLOAT, DOUBLE])
@pytest.mark.parametrize("tracks", [0, 1])
@pytest.mark.parametrize("members", [[1.0], [0.0, 30.0], [2.0, 31.0], [-1.0, 0.0, 40.0]])
def test_sets_are_read_as_the_runtime_computes_them(members: list[float], tracks: int, inputs: int) -> None:
    node = helper.make_node(
        "TreeEnsemble",
        ["features"],
        ["margin"],
        domain="ai.onnx.ml",
        n_targets=1,
        tree_roots=[0],
        nodes_featureids=[0],
        nodes_modes=helper.make_tensor("m", TensorProto.UINT8, [1], [6]),
        nodes_splits=helper.make_tensor("s", inputs, [1], [0.0]),
        membership_values=helper.make_tensor("v", inputs, [len(members) + 1], [*members, np.nan]),
        nodes_missing_value_tracks_true=[tracks],
        nodes_truenodeids=[0],
        nodes_trueleafs=[1],
        nodes_falsenodeids=[1],
        nodes_falseleafs=[1],
        leaf_targetids=[0, 0],
        leaf_weights=helper.make_tensor("w", inputs, [2], [1.0, 2.0]),
    )
    model = model_of(node, 5, inputs, inputs)
    rows = edges(np.array(members))
    np.testing.assert_array_equal(read(model, rows), scored(model, rows)[:, 0])


def test_covers_come_from_the_caller_or_from_hit_rates_that_add_up() -> None:
    plain = model_of(regressor([MODES[0]] * 3, None, [0.1, 2.0, 0.3], FLOAT), 3, FLOAT, FLOAT)
    assert not read_trees(plain).has_covers
    given = read_trees(plain, leaf_covers=[1.0, 2.0, 3.0, 4.0]).trees[0].cover
    assert given is not None
    assert given[0] == 10.0
    for rates, counted in (([10.0, 3.0, 7.0, 1.0, 2.0, 3.0, 4.0], True), ([1.0] * 7, False)):
        node = regressor([MODES[0]] * 3, None, [0.1, 2.0, 0.3], FLOAT, nodes_hitrates=rates)
        assert read_trees(model_of(node, 3, FLOAT, FLOAT)).has_covers == counted
    with pytest.raises(InputError, match="3 covers for 4 leaves"):
        read_trees(plain, leaf_covers=[1.0, 2.0, 3.0])


@pytest.mark.parametrize("extra", [{"aggregate_function": "MAX"}, {"nodes_truenodeids": [1, 3, 99, 0, 0, 0, 0]}])
def test_what_is_no_sum_of_whole_trees_is_refused(extra: dict[str, object]) -> None:
    node = regressor([MODES[0]] * 3, None, [0.1, 2.0, 0.3], FLOAT, **extra)
    with pytest.raises(UnsupportedModelError):
        read_trees(model_of(node, 3, FLOAT, FLOAT))
