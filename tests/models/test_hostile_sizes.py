"""What a graph takes is the same for all rows: no row's values decide on a shape, and no output that nobody asked for
is computed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from models import UnsupportedModelError
from models.admission import needs_trial, read_graph
from models.conformance import check_model
from models.graph import facts_of, normalise
from models.trial import try_out
from tests.models.builders import graph_of, longs

INT64, FLOAT = TensorProto.INT64, TensorProto.FLOAT
FROM_VALUES = [
    helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
    helper.make_node("Cast", ["largest"], ["number"], to=INT64),
    helper.make_node("Reshape", ["number", "one"], ["list"]),
]
"""`number` int64[] and `list` int64[1] from what the rows hold."""
FROM_SHAPES = [
    helper.make_node("Shape", ["x"], ["shape"]),
    helper.make_node("Gather", ["shape", "zero"], ["list"]),
    helper.make_node("Squeeze", ["list"], ["number"]),
]
"""The same from how many rows there are."""
SIZED = {
    "Range": ["first", "number", "step"],
    "Expand": ["x", "list"],
    "Tile": ["x", "list"],
    "Pad": ["x", "list"],
    "ConstantOfShape": ["list"],
    "OneHot": ["zero", "number", "on_off"],
    "Reshape": ["x", "list"],
    "Slice": ["x", "list", "one"],
    "Split": ["x", "list"],
    "TopK": ["x", "list"],
    "Squeeze": ["x", "list"],
    "Unsqueeze": ["x", "list"],
    "ReduceSum": ["x", "list"],
}


def beside_the_margin(size: list[onnx.NodeProto], operator: str, *inputs: str) -> bytes:
    """Each row's sum, and nothing times the number of all that an operator makes."""
    outputs = ["made", "places"] if operator == "TopK" else ["made"]
    attributes = {"axis": 0} if operator == "Split" else {}
    initializers = [longs("zero", 0), longs("one", 1), helper.make_tensor("nothing", FLOAT, [], [0.0])]
    initializers += [helper.make_tensor(name, INT64, [], [value]) for name, value in (("first", 0), ("step", 1))]
    initializers += [helper.make_tensor("on_off", FLOAT, [2], [0.0, 1.0])]
    model = graph_of(
        *size,
        helper.make_node(operator, list(inputs), outputs, **attributes),
        helper.make_node("Size", ["made"], ["count"]),
        helper.make_node("Cast", ["count"], ["all"], to=FLOAT),
        helper.make_node("Mul", ["all", "nothing"], ["none"]),
        helper.make_node("ReduceSum", ["x", "one"], ["sum"]),
        helper.make_node("Add", ["sum", "none"], ["y"]),
        initializers=initializers,
    )
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("operator", SIZED)
def test_an_operator_whose_size_a_row_could_choose_is_refused(operator: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"'{operator}' that makes 'made' takes a size"):
        read_graph(beside_the_margin(FROM_VALUES, operator, *SIZED[operator]))
    read_graph(beside_the_margin(FROM_SHAPES, operator, *SIZED[operator]))


def test_a_size_that_a_row_could_choose_is_found_through_all_that_is_computed_of_it() -> None:
    far = [
        *FROM_VALUES,
        helper.make_node("Concat", ["zero", "list"], ["pair"], axis=0),
        helper.make_node("ReduceProd", ["pair"], ["product"], keepdims=0),
        helper.make_node("Where", ["true", "product", "step"], ["limit"]),
    ]
    content = onnx.load_model_from_string(beside_the_margin(far, "Range", "first", "limit", "step"))
    content.graph.initializer.append(helper.make_tensor("true", TensorProto.BOOL, [], [True]))
    with pytest.raises(UnsupportedModelError, match="'Range'"):
        read_graph(content.SerializeToString())


def test_the_check_says_which_operator_and_what_to_do() -> None:
    report = check_model(beside_the_margin(FROM_VALUES, "Range", *SIZED["Range"]))
    assert [check.name for check in report.failures] == ["admitted"]
    assert "export it with constant sizes, or ones made of shapes" in report.failures[0].detail


def test_initializers_that_are_inputs_too_as_in_old_files_are_constants() -> None:
    model = graph_of(helper.make_node("ReduceSum", ["x", "axis"], ["y"]), initializers=[longs("axis", 1)])
    model.graph.input.append(helper.make_tensor_value_info("axis", INT64, [1]))
    model.ir_version = 3
    assert not check_model(model.SerializeToString()).failures


def constant(name: str, *values: int) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=longs("", *values))


ROW_COUNT = [
    helper.make_node("Shape", ["x"], ["shape"]),
    constant("0", 0),
    helper.make_node("Gather", ["shape", "0"], ["rows"], axis=0),
]
SUMMED = [constant("axis", 1), helper.make_node("ReduceSum", ["out", "axis"], ["y"])]
HONEST: dict[str, list[onnx.NodeProto]] = {
    "view(x.size(0), -1)": [
        *ROW_COUNT,
        constant("-1", -1),
        helper.make_node("Concat", ["rows", "-1"], ["view"], axis=0),
        helper.make_node("Reshape", ["x", "view"], ["out"]),
    ],
    "a row for each, by expand": [
        *ROW_COUNT,
        constant("2", 2),
        helper.make_node("Concat", ["rows", "2"], ["wanted"], axis=0),
        helper.make_node("Shape", ["wanted"], ["rank"]),
        helper.make_node("ConstantOfShape", ["rank"], ["ones"], value=longs("", 1)),
        constant("-1", -1),
        helper.make_node("Mul", ["ones", "-1"], ["minus"]),
        helper.make_node("Equal", ["wanted", "minus"], ["kept"]),
        helper.make_node("Where", ["kept", "ones", "wanted"], ["size"]),
        constant("row", 3, 4),
        helper.make_node("Cast", ["row"], ["floats"], to=FLOAT),
        helper.make_node("Expand", ["floats", "size"], ["many"]),
        helper.make_node("Mul", ["many", "x"], ["out"]),
    ],
    "flatten, by sizes in float and back": [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Cast", ["shape"], ["sizes"], to=FLOAT),
        constant("0", 0),
        constant("1", 1),
        constant("2", 2),
        helper.make_node("Slice", ["sizes", "0", "1"], ["first"]),
        helper.make_node("Slice", ["sizes", "1", "2"], ["second"]),
        helper.make_node("ReduceProd", ["second"], ["product"], keepdims=1),
        helper.make_node("Concat", ["first", "product"], ["flat"], axis=0),
        helper.make_node("Cast", ["flat"], ["view"], to=INT64),
        helper.make_node("Reshape", ["x", "view"], ["out"]),
    ],
    "arange(x.size(0))": [
        *ROW_COUNT,
        helper.make_node("Squeeze", ["rows", "0"], ["count"]),
        helper.make_node("Constant", [], ["from"], value=helper.make_tensor("", INT64, [], [0])),
        helper.make_node("Constant", [], ["by"], value=helper.make_tensor("", INT64, [], [1])),
        helper.make_node("Range", ["from", "count", "by"], ["places"]),
        helper.make_node("Gather", ["x", "places"], ["out"], axis=0),
    ],
    "a category as one of four": [
        constant("1", 1),
        helper.make_node("Cast", ["x"], ["codes"], to=INT64),
        constant("4", 4),
        constant("off and on", 0, 1),
        helper.make_node("OneHot", ["codes", "4", "off and on"], ["hot"], axis=-1),
        helper.make_node("Cast", ["hot"], ["floats"], to=FLOAT),
        constant("view", 0, 8),
        helper.make_node("Reshape", ["floats", "view"], ["out"]),
    ],
    "the greater of two": [
        constant("1", 1),
        helper.make_node("TopK", ["x", "1"], ["out", "places"]),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", HONEST)
def test_what_exporters_write_for_shapes_is_admitted_and_scored(name: str) -> None:
    report = check_model(graph_of(*HONEST[name], *SUMMED).SerializeToString(), rows=np.zeros((40, 2)))
    assert not report.failures, report.failures


def cubed() -> onnx.ModelProto:
    """Rows by rows by rows of numbers: 16 are nothing, 1,024 are 4 GiB."""
    return graph_of(
        *ROW_COUNT,
        helper.make_node("Concat", ["rows", "rows", "rows", "one"], ["cube"], axis=0),
        helper.make_node("ReduceSum", ["x", "one"], ["sum"]),
        helper.make_node("Expand", ["sum", "cube"], ["big"]),
        helper.make_node("ReduceMean", ["big", "first two"], ["y"], keepdims=0),
        initializers=[longs("one", 1), longs("first two", 0, 1)],
    )


def test_a_graph_that_grows_faster_than_the_number_of_rows_is_refused() -> None:
    model = normalise(read_graph(cubed().SerializeToString()))
    assert needs_trial(model)
    with pytest.raises(UnsupportedModelError, match=r"not served|broke the process"):
        try_out(model.SerializeToString(), facts_of(model))


# The file as it came is what the served form is compared with


def test_outputs_beside_the_answer_are_not_computed() -> None:
    model = graph_of(
        helper.make_node("ReduceSum", ["x", "axis"], ["margin"]),
        helper.make_node("Sigmoid", ["margin"], ["y"]),
        helper.make_node("ConstantOfShape", ["shape"], ["big"], value=longs("", 1)),
        helper.make_node("ReduceSum", ["big"], ["label"], keepdims=0),
        initializers=[longs("axis", 1), longs("shape", 2**36)],
    )
    model.graph.output.append(helper.make_tensor_value_info("label", INT64, []))
    report = check_model(model.SerializeToString())
    assert not report.failures
    compared = [check.passed for check in report.checks if check.name == "equals the original"]
    assert compared == [True, True, True]


def test_the_way_to_the_answer_is_tried_apart_also_where_the_served_form_leaves_it() -> None:
    """[1 − p, p] with a 1 for each of four million: the served form takes the margin before it."""
    ones = helper.make_tensor("ones", FLOAT, [2**22, 1, 1], np.ones(2**22, np.float32).tobytes(), raw=True)
    model = graph_of(
        helper.make_node("ReduceSum", ["x", "axis"], ["margin"]),
        helper.make_node("Unsqueeze", ["margin", "zero"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["p"]),
        helper.make_node("Sub", ["ones", "p"], ["rest"]),
        helper.make_node("Concat", ["rest", "p"], ["y"], axis=1),
        initializers=[longs("axis", 1), longs("zero", 0), ones],
        columns=2,
    )
    report = check_model(model.SerializeToString(), target="1")
    assert not report.failures
    told = [(check.passed, check.detail) for check in report.checks if check.name == "equals the original"]
    assert [passed for passed, _ in told] == [None]
    assert "a trial of the graph failed" in told[0][1]
