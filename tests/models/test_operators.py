"""Trees are read as ONNX Runtime computes them: operators, modes, precisions, missing values, targets, aggregates."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from models import InputError, UnsupportedModelError
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
    return np.asarray(session.run(["margin"], {"features": rows.astype(dtype)})[0], np.float64)


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
    ensemble, rows = read_trees(model), edges(np.array(values))
    assert ensemble.single_precision == (inputs == FLOAT)
    seen = rows.astype(np.float32).astype(np.float64) if inputs == FLOAT else rows
    np.testing.assert_array_equal(margins(ensemble, seen), scored(model, rows)[:, 0])


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
    seen = rows.astype(np.float32).astype(np.float64) if inputs == FLOAT else rows
    np.testing.assert_array_equal(margins(read_trees(model), seen), scored(model, rows)[:, 0])


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
