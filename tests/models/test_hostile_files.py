"""A model file is somebody else's: what is damaged, hostile or of another kind is refused, and the message says why."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from models import BundleCorruptError, UnsupportedModelError, admission
from models.admission import needs_trial, read_graph
from models.conformance import check_model
from models.explain import explainer_of
from models.export import export_trees
from models.graph import facts_of, normalise
from models.trial import try_out
from tests.models.builders import graph_of, longs, published, stump, tree_classifier


def summed() -> onnx.NodeProto:
    return helper.make_node("ReduceSum", ["x", "axis"], ["y"])


def plain() -> onnx.ModelProto:
    return graph_of(summed(), initializers=[longs("axis", 1)])


def of_other_domain() -> onnx.ModelProto:
    model = graph_of(helper.make_node("Anything", ["x"], ["y"], domain="com.example"))
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    return model


def with_loop() -> onnx.ModelProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["on"])],
        "body",
        [helper.make_tensor_value_info("i", 7, []), helper.make_tensor_value_info("going", 9, [])],
        [helper.make_tensor_value_info("on", 9, [])],
    )
    return graph_of(helper.make_node("Loop", ["", "true"], ["y"], body=body))


def hidden_in_an_attribute() -> onnx.ModelProto:
    inner = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "inner", [], [])
    return graph_of(helper.make_node("Identity", ["x"], ["y"], extra=inner))


def random_numbers() -> onnx.ModelProto:
    return graph_of(helper.make_node("RandomNormalLike", ["x"], ["y"]))


def with_function() -> onnx.ModelProto:
    model = plain()
    model.functions.append(
        helper.make_function("own", "F", ["a"], ["b"], [helper.make_node("Identity", ["a"], ["b"])], [])
    )
    return model


def external(where: str) -> Callable[[], onnx.ModelProto]:
    def make() -> onnx.ModelProto:
        tensor = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../../../../etc/passwd")
        if where == "initializer":
            return graph_of(summed(), initializers=[tensor])
        return graph_of(helper.make_node("Constant", [], ["axis"], value=tensor), summed())

    return make


def declared_only() -> onnx.ModelProto:
    tensor = TensorProto(name="axis", data_type=TensorProto.INT64, dims=[2**40])
    return graph_of(summed(), initializers=[tensor])


def negative_dimension() -> onnx.ModelProto:
    tensor = TensorProto(name="axis", data_type=TensorProto.INT64, dims=[-1, -1], int64_data=[1])
    return graph_of(summed(), initializers=[tensor])


def sparse() -> onnx.ModelProto:
    model = plain()
    values = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, longs("i", 7), [2**40]))
    return model


def endless_nodes() -> onnx.ModelProto:
    names = ["x", *[f"t{i}" for i in range(admission.NODES_MAX)], "y"]
    return graph_of(*(helper.make_node("Identity", [a], [b]) for a, b in pairwise(names)))


ADMITTED_NEVER: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "an operator of somebody's own": (of_other_domain, "'Anything' of domain 'com.example'"),
    "a loop": (with_loop, "'Loop'"),
    "a graph in an attribute": (hidden_in_an_attribute, "'extra', which holds a graph"),
    "random numbers": (random_numbers, "'RandomNormalLike'"),
    "functions": (with_function, "functions"),
    "data in another file": (external("initializer"), "other files"),
    "a constant in another file": (external("constant"), "other files"),
    "a tensor without its data": (declared_only, "declares 1099511627776 values and holds 0"),
    "a negative dimension": (negative_dimension, "shape"),
    "a sparse tensor": (sparse, "sparse"),
    "a link that leaves a class unset": (lambda: tree_classifier(post_transform="PROBIT"), "PROBIT"),
    "too many operators": (endless_nodes, "more than 20,000"),
}


@pytest.mark.parametrize("name", ADMITTED_NEVER)
def test_a_file_with_forbidden_parts_is_refused_before_the_runtime_sees_it(name: str) -> None:
    make, reason = ADMITTED_NEVER[name]
    with pytest.raises(UnsupportedModelError, match=reason):
        read_graph(make().SerializeToString())


def test_a_large_file_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MODEL_BYTES_MAX", 10)
    with pytest.raises(UnsupportedModelError, match="bytes, more than 10"):
        read_graph(plain().SerializeToString())


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.95])
def test_a_truncated_file_is_refused(share: float) -> None:
    content = export_trees(stump())
    with pytest.raises(UnsupportedModelError):
        facts_of(read_graph(content[: int(len(content) * share)]))


def test_a_text_from_the_file_cannot_take_over_the_message() -> None:
    model = graph_of(helper.make_node("\x1b[2Jcleared\n" + "x" * 500, ["x"], ["y"]))
    with pytest.raises(UnsupportedModelError) as raised:
        read_graph(model.SerializeToString())
    assert "\x1b" not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400


# What allowed operators can still do is tried in another process


def constant_of_shape() -> onnx.ModelProto:
    return graph_of(
        helper.make_node("ConstantOfShape", ["shape"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["wide"]),
        helper.make_node("ReduceSum", ["wide", "axis"], ["y"]),
        initializers=[longs("shape", 2**34), longs("axis", 1)],
    )


def expanded() -> onnx.ModelProto:
    return graph_of(
        helper.make_node("Expand", ["x", "shape"], ["big"]),
        helper.make_node("ReduceSum", ["big", "axes"], ["y"], keepdims=0),
        initializers=[longs("shape", 2**16, 2**16, 1, 2), longs("axes", 0, 1, 3)],
    )


def doubled() -> onnx.ModelProto:
    steps = [f"d{i}" for i in range(34)]
    nodes = [helper.make_node("Concat", [a, a], [b], axis=1) for a, b in zip(["x", *steps], steps, strict=False)]
    last = helper.make_node("ReduceSum", [steps[-1], "axis"], ["y"])
    return graph_of(*nodes, last, initializers=[longs("axis", 1)])


@pytest.mark.parametrize("make", [constant_of_shape, expanded, doubled])
def test_a_graph_that_grows_beyond_bounds_is_refused(make: Callable[[], onnx.ModelProto]) -> None:
    model = normalise(read_graph(make().SerializeToString()))
    assert needs_trial(model)
    with pytest.raises(UnsupportedModelError, match=r"not served|broke the process"):
        try_out(model.SerializeToString(), facts_of(model))


def test_a_graph_that_takes_too_long_is_refused() -> None:
    steps = [f"m{i}" for i in range(400)]
    nodes = [helper.make_node("MatMul", [a, "w"], [b]) for a, b in zip(["wide", *steps], steps, strict=False)]
    weights = helper.make_tensor(
        "w", TensorProto.FLOAT, [1500, 1500], np.zeros(1500 * 1500, np.float32).tobytes(), raw=True
    )
    model = graph_of(
        helper.make_node("Tile", ["x", "times"], ["tiled"]),
        helper.make_node("Slice", ["tiled", "begin", "end", "axis"], ["wide"]),
        *nodes,
        helper.make_node("ReduceSum", [steps[-1], "axis"], ["y"]),
        initializers=[weights, longs("times", 6_000, 750), longs("begin", 0), longs("end", 1500), longs("axis", 1)],
    )
    served = normalise(read_graph(model.SerializeToString()))
    with pytest.raises(UnsupportedModelError, match=r"takes more than 1 s|too long"):
        try_out(served.SerializeToString(), facts_of(served), seconds=1)


def test_the_check_tells_a_refusal_as_its_last_point() -> None:
    report = check_model(constant_of_shape().SerializeToString())
    assert [check.name for check in report.failures] == ["tried apart"]
    assert (report.onnx, report.checks[-1].passed) == (None, False)


@pytest.mark.parametrize(
    "changes",
    [
        {"nodes_truenodeids": [0, 0, 0]},
        {"nodes_truenodeids": [9, 0, 0]},
        {"nodes_featureids": [7, 0, 0]},
        {"nodes_featureids": [-1, 0, 0]},
        {"nodes_values": [0.5]},
        {"class_nodeids": [1, 9]},
        {"class_ids": [0, 5]},
        {"class_weights": [float("nan"), 1.0]},
        {"nodes_modes": ["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"]},
        {"nodes_modes": ["BRANCH_ANY", "LEAF", "LEAF"]},
    ],
)
def test_trees_whose_parts_do_not_fit_are_refused_before_the_runtime_walks_them(changes: dict[str, object]) -> None:
    assert not check_model(tree_classifier().SerializeToString()).failures
    report = check_model(tree_classifier(**changes).SerializeToString())
    assert len(report.failures) == 1
    assert report.onnx is None


@pytest.mark.parametrize("coefficients", [[1.0], [float("nan"), 1.0]], ids=["too few", "no number"])
def test_a_linear_model_whose_parts_do_not_fit_is_refused(coefficients: list[float]) -> None:
    node = helper.make_node(
        "LinearRegressor", ["x"], ["y"], domain="ai.onnx.ml", coefficients=coefficients, intercepts=[0.0], targets=1
    )
    report = check_model(graph_of(node).SerializeToString())
    assert report.failures
    assert report.onnx is None


# What fits no served form is told what to do


def two_inputs() -> onnx.ModelProto:
    model = plain()
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["N", 2]))
    return model


def texts_in() -> onnx.ModelProto:
    model = plain()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    return model


def pictures_in() -> onnx.ModelProto:
    model = plain()
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 2, 2]))
    return model


def two_answers() -> onnx.ModelProto:
    model = plain()
    model.graph.node.append(helper.make_node("Identity", ["y"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 1]))
    return model


@pytest.mark.parametrize(
    ("make", "reason"),
    [(two_inputs, "one of float or double"), (texts_in, "float or double"), (pictures_in, "matrix"),
     (two_answers, "2 outputs of floats")],
)  # fmt: skip
def test_a_graph_of_another_kind_is_refused_with_advice(make: Callable[[], onnx.ModelProto], reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        normalise(make())


def test_of_more_than_two_classes_one_must_be_stated() -> None:
    model = tree_classifier(classlabels_int64s=[0, 1, 7], class_ids=[0, 2], post_transform="SOFTMAX")
    with pytest.raises(UnsupportedModelError, match="state the one to score: 0, 1, 7"):
        normalise(model)
    with pytest.raises(UnsupportedModelError, match="no class or target '9': choose from 0, 1, 7"):
        normalise(model, target="9")
    assert facts_of(normalise(model, target="7")).target == 2


# A bundle's files


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    store, version, directory = published(tmp_path)
    (directory / "model.onnx").unlink()
    os.mkfifo(directory / "model.onnx")
    with pytest.raises(BundleCorruptError, match="no plain file"):
        store.load("ad_click_risk", version)


def test_an_endless_file_in_a_bundle_is_not_read(tmp_path: Path) -> None:
    store, version, directory = published(tmp_path)
    with (directory / "model.onnx").open("r+b") as file:
        file.truncate(admission.MODEL_BYTES_MAX + 1)
    with pytest.raises(BundleCorruptError, match="more than"):
        store.load("ad_click_risk", version)


def test_trees_behind_arithmetic_are_compared_with_the_number_of_columns_also_when_their_tables_look_right() -> None:
    model = tree_classifier()
    model.graph.node.insert(0, helper.make_node("Add", ["x", "one"], ["more"]))
    model.graph.node[1].input[:] = ["more"]
    model.graph.initializer.append(helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]))
    background = np.zeros((1, 2))
    tables = explainer_of(normalise(model), background, "r", lambda rows: rows[:, 0]).tables
    for attribute in model.graph.node[1].attribute:
        if attribute.name == "nodes_featureids":
            attribute.ints[:] = [2, 0, 0]
    served = read_graph(normalise(model).SerializeToString())
    with pytest.raises(UnsupportedModelError, match="not among the 2"):
        explainer_of(served, background, "r", lambda rows: rows[:, 0], tables=tables)
