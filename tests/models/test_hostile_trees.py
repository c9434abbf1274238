"""Trees from a file are looked at before ONNX Runtime builds them, whichever output they are behind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from models import Feature, InputError, Scorer, Thresholds, UnsupportedModelError
from models._operators import DEPTH_MAX, TARGETS_MAX, check_nodes
from models.admission import needs_trial, read_graph
from models.conformance import check_model
from models.export import export_trees
from models.graph import PROBABILITY, SPACE_PROPERTY, VALUE, facts_of
from models.trees import COVERS_PROPERTY, TARGET_PROPERTY, Ensemble, TreeBuilder
from tests.models.builders import stump


def chain(splits: int, **changes: object) -> onnx.NodeProto:
    """A regressor from `features` to `raw`: one path of splits, a leaf beside each."""
    count = 2 * splits + 1
    inner = range(0, count - 1, 2)
    parts: dict[str, object] = {
        "nodes_treeids": [0] * count,
        "nodes_nodeids": list(range(count)),
        "nodes_featureids": [0] * count,
        "nodes_values": [0.5] * count,
        "nodes_modes": ["LEAF" if i % 2 or i == count - 1 else "BRANCH_LEQ" for i in range(count)],
        "nodes_truenodeids": [i + 1 if i in inner else 0 for i in range(count)],
        "nodes_falsenodeids": [i + 2 if i in inner else 0 for i in range(count)],
        "target_treeids": [0],
        "target_nodeids": [1],
        "target_ids": [0],
        "target_weights": [1.0],
        "n_targets": 1,
    }
    return helper.make_node("TreeEnsembleRegressor", ["features"], ["raw"], domain="ai.onnx.ml", **(parts | changes))


def served(*nodes: onnx.NodeProto, **metadata: str) -> bytes:
    """A graph in the served form; the nodes make `margin` and `score`."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["N", 1]) for name in ("margin", "score")],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    helper.set_model_props(model, {SPACE_PROPERTY: VALUE, **metadata})
    return bytes(model.SerializeToString())


def both(node: onnx.NodeProto) -> bytes:
    """Margin and score are what the node says."""
    return served(
        node,
        helper.make_node("Cast", ["raw"], ["margin"], to=TensorProto.DOUBLE),
        helper.make_node("Identity", ["margin"], ["score"]),
    )


def behind_score_only(node: onnx.NodeProto) -> bytes:
    """The margin is made of good trees, the score of these."""
    good = chain(1)
    good.output[:] = ["good"]
    return served(
        good,
        node,
        helper.make_node("Cast", ["good"], ["margin"], to=TensorProto.DOUBLE),
        helper.make_node("Cast", ["raw"], ["score"], to=TensorProto.DOUBLE),
        **{SPACE_PROPERTY: "raw_margin"},
    )


def with_metadata(**props: str) -> onnx.ModelProto:
    model = onnx.load_model_from_string(export_trees(stump()))
    for key, value in props.items():
        model.metadata_props.add(key=key, value=value)
    return model


@pytest.mark.parametrize("form", [both, behind_score_only])
def test_a_tree_too_deep_for_the_runtimes_stack_is_refused_before_it_is_built(
    form: Callable[[onnx.NodeProto], bytes],
) -> None:
    with pytest.raises(UnsupportedModelError, match="more than 2,000 splits"):
        read_graph(form(chain(30_000)))


def test_a_tree_as_deep_as_allowed_is_admitted_and_scored() -> None:
    content = both(chain(DEPTH_MAX))
    read_graph(content)
    np.testing.assert_array_equal(Scorer(content).score(np.zeros((1, 2))).margin, [1.0])
    with pytest.raises(UnsupportedModelError, match="splits on the way"):
        read_graph(both(chain(DEPTH_MAX + 1)))


@pytest.mark.parametrize("step", [0.0, 0.001, -1.0])
def test_a_tree_as_deep_as_allowed_is_explained_in_full(step: float) -> None:
    """All splits are of one feature, and all leaves but one have no weight."""
    report = check_model(both(chain(DEPTH_MAX, nodes_values=[0.5 + step * i for i in range(2 * DEPTH_MAX + 1)])))
    assert not report.failures
    assert report.checks[-1].name == "adds up"


def test_depth_is_measured_in_the_newest_tree_operator_too() -> None:
    builder = TreeBuilder()
    node = builder.reserve()
    for _ in range(DEPTH_MAX + 1):
        left, right = builder.reserve(), builder.reserve()
        builder.set_split(node, 0, 0.5, True, left, right)
        builder.set_leaf(left, 1.0)
        node = right
    builder.set_leaf(node, 2.0)
    content = export_trees(Ensemble(2, (builder.build(),)))
    with pytest.raises(UnsupportedModelError, match="splits on the way"):
        read_graph(content)


@pytest.mark.parametrize("targets", [TARGETS_MAX + 1, 2**40])
def test_more_targets_than_anybody_has_are_refused_before_memory_is_taken(targets: int) -> None:
    report = check_model(both(chain(1, n_targets=targets)))
    assert [check.name for check in report.failures] == ["admitted"]
    assert "targets, more than 10,000" in report.failures[0].detail


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"nodes_featureids": [10**9, 0, 0]}, "not among the 2"),
        ({"nodes_featureids": [-1, 0, 0]}, "negative number"),
        ({"nodes_falsenodeids": [0, 0, 0]}, "must be trees"),
        ({"nodes_falsenodeids": [7, 0, 0]}, "not there"),
        ({"nodes_featureids": [0, 0]}, "differ in length"),
        ({"target_ids": [3]}, "not there"),
        ({"target_nodeids": [9]}, "not there"),
        ({"nodes_modes": ["BRANCH_EQ", "LEAF", "LEAF"]}, "no weight"),  # ONNX Runtime would end the process
    ],
)
@pytest.mark.parametrize("form", [both, behind_score_only])
def test_trees_that_lead_astray_are_refused_whichever_output_they_make(
    form: Callable[[onnx.NodeProto], bytes], changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        read_graph(form(chain(1, **changes)))


@pytest.mark.parametrize(("nodes", "admitted"), [([1, 2], False), ([1, 2, 1, 2], True)])
def test_two_classes_need_weights_of_the_second(nodes: list[int], admitted: bool) -> None:
    """ONNX Runtime turns the sign of rows that come by weights of the first alone."""
    node = helper.make_node(
        "TreeEnsembleClassifier",
        ["features"],
        ["label", "raw"],
        domain="ai.onnx.ml",
        nodes_treeids=[0] * 3,
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[0] * 3,
        nodes_values=[0.5, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        class_treeids=[0] * len(nodes),
        class_nodeids=nodes,
        class_ids=[0, 1, 1, 0][: len(nodes)],
        class_weights=[0.25, 0.75, 0.75, 0.25][: len(nodes)],
        classlabels_int64s=[0, 1],
    )
    if admitted:
        check_nodes(node, 2)
        return
    with pytest.raises(UnsupportedModelError, match="second of two classes"):
        check_nodes(node, 2)


def test_trees_that_read_columns_of_unknown_number_are_tried_apart() -> None:
    stacked = chain(1)
    stacked.input[:], stacked.output[:] = ["raw"], ["last"]
    cast = helper.make_node("Cast", ["last"], ["margin"], to=TensorProto.DOUBLE)
    content = served(chain(1), stacked, cast, helper.make_node("Identity", ["margin"], ["score"]))
    assert needs_trial(read_graph(content))
    assert not needs_trial(read_graph(both(chain(1))))


@pytest.mark.parametrize("props", [{COVERS_PROPERTY: "abc 1"}, {TARGET_PROPERTY: "9" * 5_000}])
def test_metadata_that_is_no_number_is_told_as_a_failure(props: dict[str, str]) -> None:
    assert check_model(with_metadata(**props).SerializeToString()).failures


def test_metadata_that_is_no_text_is_refused() -> None:
    content = with_metadata(**{TARGET_PROPERTY: "QQQQ"}).SerializeToString().replace(b"QQQQ", b"\xff\xfe\xff\xfe")
    report = check_model(content)
    assert "not UTF-8" in report.failures[0].detail


@pytest.mark.parametrize("space", [VALUE, PROBABILITY])
def test_where_the_margin_is_the_score_another_score_is_refused(space: str) -> None:
    margin = helper.make_node("Cast", ["raw"], ["margin"], to=TensorProto.DOUBLE)
    other = helper.make_node("Neg", ["margin"], ["score"])
    content = served(chain(1), margin, other, **{SPACE_PROPERTY: space})
    with pytest.raises(UnsupportedModelError, match="made in another way"):
        facts_of(read_graph(content))
    assert check_model(content).failures
    assert facts_of(read_graph(both(chain(1)))).output_space == VALUE


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_numbers_that_json_cannot_hold_are_refused_when_they_are_given(value: float) -> None:
    with pytest.raises(InputError, match="finite"):
        Feature(ref="view:f", code="F", missing=value)
    with pytest.raises(InputError, match="finite"):
        Thresholds(review=0.5, block=value)
