"""What a model file may hold, decided from its bytes alone, before ONNX Runtime sees it.

A model file comes from elsewhere and is code: it can name files, allocate, loop, and call what is registered under a
domain. Allowed is only what a scoring function needs: pure tensor operators of `ai.onnx` and `ai.onnx.ml`, with all
data inside the file, and shapes that no row's values decide on. What a graph of allowed operators can still do (grow
tensors, take long, break the runtime) is then the same for all rows, and is tried out in a process of its own: see
`models.trial`.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import onnx
from google.protobuf.message import DecodeError

from models._operators import check_shape, tree_operators
from models._sizes import shaped_by_values
from models.errors import UnsupportedModelError

MODEL_BYTES_MAX = 512 * 2**20
NODES_MAX = 20_000
_NAMED_MAX = 80
"""As many characters of a text from the file are repeated in a message."""

ML_DOMAIN = "ai.onnx.ml"
DOMAINS = ("", "ai.onnx", ML_DOMAIN)

TREE_OPERATORS = frozenset({"TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"})
_BOUNDED_ML = TREE_OPERATORS | {
    *("LinearClassifier", "LinearRegressor", "Scaler", "Imputer", "Normalizer", "Binarizer", "ZipMap"),
}
_CLASSIFIERS = frozenset({"TreeEnsembleClassifier", "LinearClassifier", "SVMClassifier"})
_OTHER_ML = frozenset({"ArrayFeatureExtractor", "FeatureVectorizer", "SVMClassifier", "SVMRegressor", "LabelEncoder"})
_BOUNDED = frozenset(
    {
        *("Identity", "Cast", "Sigmoid", "Softmax", "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu", "Tanh", "Erf"),
        *("HardSigmoid", "HardSwish", "Mish", "Softplus", "Softsign", "LogSoftmax", "Abs", "Neg", "Exp", "Log", "Sqrt"),
        *(
            "Reciprocal",
            "Sign",
            "Floor",
            "Ceil",
            "Round",
            "Not",
            "IsNaN",
            "IsInf",
            "Clip",
            "ThresholdedRelu",
            "Flatten",
        ),
        *("ArgMax", "Reshape", "Squeeze", "Unsqueeze", "Dropout"),
    }
)
"""Operators whose output is no larger than their inputs. ZipMap and ArgMax are there to be cut off."""
_KEEPS_COLUMNS = _BOUNDED - {"ArgMax", "Flatten", "Reshape", "Squeeze", "Unsqueeze"}
_KEEPS_COLUMNS_ML = frozenset({"Scaler", "Imputer", "Normalizer", "Binarizer"})
"""Operators whose output has as many columns as their input."""
_OTHER = frozenset(
    {
        *("Constant", "ConstantOfShape", "Shape", "Size", "Range", "Expand", "Tile", "Pad", "Concat", "Split", "Slice"),
        *("Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND", "Where", "Transpose", "OneHot"),
        *("Add", "Sub", "Mul", "Div", "Mod", "Pow", "Min", "Max", "Mean", "Sum", "PRelu", "CumSum", "Trilu", "TopK"),
        *("MatMul", "Gemm", "Einsum", "Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"),
        *("BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization", "LpNormalization"),
        *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum"),
        *("ReduceLogSumExp", "ReduceSumSquare", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
        *("And", "Or", "Xor", "Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh"),
        *("RMSNormalization", "Attention", "Swish"),
    }
)

_DATA_FIELDS = {
    onnx.TensorProto.FLOAT: ("float_data", 4),
    onnx.TensorProto.DOUBLE: ("double_data", 8),
    onnx.TensorProto.FLOAT16: ("int32_data", 2),
    onnx.TensorProto.INT64: ("int64_data", 8),
    onnx.TensorProto.INT32: ("int32_data", 4),
    onnx.TensorProto.INT16: ("int32_data", 2),
    onnx.TensorProto.INT8: ("int32_data", 1),
    onnx.TensorProto.UINT64: ("uint64_data", 8),
    onnx.TensorProto.UINT32: ("uint64_data", 4),
    onnx.TensorProto.UINT16: ("int32_data", 2),
    onnx.TensorProto.UINT8: ("int32_data", 1),
    onnx.TensorProto.BOOL: ("int32_data", 1),
    onnx.TensorProto.STRING: ("string_data", 0),
}
"""For each element type, the field of its values and the bytes of one in `raw_data` (0: it cannot be there)."""
_PLAIN_ATTRIBUTES = frozenset(
    getattr(onnx.AttributeProto, name)
    for name in ("FLOAT", "INT", "STRING", "TENSOR", "FLOATS", "INTS", "STRINGS", "TENSORS")
)


def read_graph(content: bytes) -> onnx.ModelProto:
    """The parsed model, with nothing in it but allowed operators and data that is really there.

    Raises UnsupportedModelError, saying what is wrong, for anything else.
    """
    if len(content) > MODEL_BYTES_MAX:
        raise UnsupportedModelError(f"the model file has {len(content):,} bytes, more than {MODEL_BYTES_MAX:,}")
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise UnsupportedModelError("the model file is no ONNX graph: export it again") from error
    if not model.graph.node:
        raise UnsupportedModelError("the model file is no ONNX graph with operators in it: export it again")
    _check_texts(model)
    _check_parts(model)
    for tensor in _tensors(model.graph):
        _check_tensor(tensor)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise UnsupportedModelError(f"the graph breaks ONNX's rules ({named(error)}): export it again") from error
    _check_sizes(model.graph)
    check_trees(model)
    return model


def check_trees(model: onnx.ModelProto) -> None:
    """Raises UnsupportedModelError for trees that ONNX Runtime cannot build or walk, whichever output they are behind.

    Their features are compared with the number of columns as far as the graph says it.
    """
    widths = _widths(model.graph)
    for operator in tree_operators(model.graph):
        check_shape(operator, widths.get(operator.input[0]))


def needs_trial(model: onnx.ModelProto) -> bool:
    """Whether an admitted graph has operators whose output can be larger than what goes in, or trees behind operators
    that hide how many columns they read: then try it out apart."""
    widths = _widths(model.graph)
    if not all(operator.input[0] in widths for operator in tree_operators(model.graph)):
        return True
    indices = {tensor.name for tensor in model.graph.initializer if list(tensor.dims) == [1]}
    return not all(
        node.op_type in (_BOUNDED_ML if node.domain == ML_DOMAIN else _BOUNDED)
        or (node.op_type == "Gather" and node.input[1] in indices)  # as `models.graph` takes the chosen column
        for node in model.graph.node
    )


def named(text: object, letters_max: int = _NAMED_MAX) -> str:
    """A text from the file as it may stand in a message: on one line, without control characters, not long."""
    shown = "".join(letter if letter.isprintable() else " " for letter in str(text))
    return shown if len(shown) <= letters_max else shown[:letters_max] + "…"


def _widths(graph: onnx.GraphProto) -> dict[str, int]:
    """Columns of the inputs, and of tensors that come from one by operators which keep them; no other tensors."""
    inputs = {value.name: value.type.tensor_type.shape.dim for value in graph.input}
    found = {name: int(dims[1].dim_value) for name, dims in inputs.items() if len(dims) == 2 and dims[1].dim_value > 0}
    for node in graph.node:  # ONNX has makers stand before readers
        keeps = node.op_type in (_KEEPS_COLUMNS_ML if node.domain == ML_DOMAIN else _KEEPS_COLUMNS)
        if keeps and node.input and node.input[0] in found:
            found |= dict.fromkeys(node.output, found[node.input[0]])
    return found


def _check_texts(model: onnx.ModelProto) -> None:
    """Protobuf hands out a text that is not UTF-8 as bytes, which no code here expects."""
    graph = model.graph
    texts: list[object] = [model.producer_name, model.producer_version, model.domain, graph.name]
    texts += [text for entry in model.metadata_props for text in (entry.key, entry.value)]
    texts += [part.name for part in (*graph.input, *graph.output, *graph.initializer)]
    texts += [entry.domain for entry in model.opset_import]
    for node in graph.node:
        texts += [node.name, node.op_type, node.domain, *node.input, *node.output]
        texts += [attribute.name for attribute in node.attribute]
    if not all(isinstance(text, str) for text in texts):
        raise UnsupportedModelError("a name or a text of the metadata is not UTF-8: the file is damaged, export again")


def _check_parts(model: onnx.ModelProto) -> None:
    if model.functions or model.training_info:
        raise UnsupportedModelError("the file holds functions or training steps of its own: export the inference graph")
    if model.graph.sparse_initializer:
        raise UnsupportedModelError("the graph keeps sparse tensors, which can grow beyond their data: make them dense")
    if len(model.graph.node) > NODES_MAX:
        raise UnsupportedModelError(f"the graph has {len(model.graph.node):,} operators, more than {NODES_MAX:,}")
    for node in model.graph.node:
        _check_node(node)


def _check_node(node: onnx.NodeProto) -> None:
    known = _BOUNDED_ML | _OTHER_ML if node.domain == ML_DOMAIN else _BOUNDED | _OTHER
    if node.domain not in DOMAINS or node.op_type not in known:
        raise UnsupportedModelError(
            f"the operator {named(node.op_type)!r} of domain {named(node.domain or 'ai.onnx')!r} is not allowed: only "
            "pure tensor operators of ai.onnx and ai.onnx.ml are, without control flow, randomness, text or own code"
        )
    if node.op_type in _CLASSIFIERS and any(a.name == "post_transform" and a.s == b"PROBIT" for a in node.attribute):
        raise UnsupportedModelError(
            f"the {node.op_type} has the post-transform PROBIT, by which ONNX Runtime makes a score of a probability "
            "and leaves one of two classes to chance: export scores, with the link behind them (Erf)"
        )
    for attribute in node.attribute:
        if attribute.type not in _PLAIN_ATTRIBUTES or attribute.ref_attr_name:
            raise UnsupportedModelError(
                f"the operator {node.op_type!r} has the attribute {named(attribute.name)!r}, which holds a graph, a "
                "sparse tensor or a reference: only numbers, texts and dense tensors are allowed"
            )


def _check_sizes(graph: onnx.GraphProto) -> None:
    node = shaped_by_values(graph)
    if node is not None:
        raise UnsupportedModelError(
            f"the operator {node.op_type!r} that makes {named(node.output[0])!r} takes a size from the input's values: "
            "a row could ask for any memory and time; export it with constant sizes, or ones made of shapes"
        )


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors


def _check_tensor(tensor: onnx.TensorProto) -> None:
    """Raises UnsupportedModelError unless the values that the shape declares are in the file, no more and no fewer."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise UnsupportedModelError(
            "the graph keeps tensors in other files, which a bundle does not cover: save it with its data inside"
        )
    if tensor.data_type not in _DATA_FIELDS or any(dim < 0 for dim in tensor.dims):
        raise UnsupportedModelError(
            f"the tensor {named(tensor.name)!r} has the shape {named(list(tensor.dims))} and element type "
            f"{tensor.data_type}: export it in float or double"
        )
    field, item_bytes = _DATA_FIELDS[tensor.data_type]
    declared = prod(tensor.dims)
    held = len(tensor.raw_data) / item_bytes if tensor.raw_data and item_bytes else len(getattr(tensor, field))
    if held != declared or tensor.HasField("segment"):
        raise UnsupportedModelError(
            f"the tensor {named(tensor.name)!r} declares {named(declared)} values and holds {held:g}: "
            "the file is damaged"
        )
