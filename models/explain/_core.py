"""The operator that makes the margin, and what prepares its input: from this the explainer is chosen.

features ──► preparation, feature by feature ──► model operator ──► the chosen column ──► margin
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from models._arrays import Floats, as_matrix
from models._wiring import FLOAT_TYPES, Wiring, attribute, up_to
from models.admission import ML_DOMAIN, TREE_OPERATORS
from models.scorer import open_session
from models.trees import FEATURES, MARGIN

_UNARY = frozenset(
    {
        *("Identity", "Abs", "Neg", "Exp", "Log", "Sqrt", "Reciprocal", "Sign", "Floor", "Ceil", "Round", "Tanh"),
        *("Sigmoid", "Relu", "Binarizer", "Erf", "Softplus"),
    }
)
_WITH_CONSTANT = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Min", "Max"})


@dataclass(frozen=True, slots=True)
class Trees:
    """The margin is `offset` + `factor` · the chosen target of one operator of trees, which is their sum or mean.
    `prepared`: the tensor that it reads."""

    operator: onnx.NodeProto
    prepared: str
    factor: float
    offset: float


@dataclass(frozen=True, slots=True)
class Linear:
    """The margin is `prepared` · weights + intercept. weights float64[F]."""

    weights: Floats
    intercept: float
    prepared: str


@dataclass(frozen=True, slots=True)
class Steps:
    """How `tensor` comes from the features: by `operators`, in order, each of which treats each feature alone."""

    tensor: str
    operators: tuple[str, ...]


class Preparation:
    """Runs what stands between the features and a model. `element_type`: ONNX's number of the type that comes out."""

    def __init__(self, model: onnx.ModelProto, steps: Steps) -> None:
        """Raises UnsupportedModelError when ONNX Runtime does not load that part of the graph."""
        entry = model.graph.input[0].type.tensor_type
        self.operators = steps.operators
        self.element_type = int(entry.elem_type)
        self._single = entry.elem_type == onnx.TensorProto.FLOAT
        self._width = _width(model)
        self._session = None
        if steps.operators:
            self._session = open_session(up_to(model, steps.tensor).SerializeToString())
            is_single = self._session.get_outputs()[0].type == "tensor(float)"
            self.element_type = onnx.TensorProto.FLOAT if is_single else onnx.TensorProto.DOUBLE

    def apply(self, matrix: Floats) -> Floats:
        """float64[N, F] as the model reads it after preparation, float64[N, F]."""
        rows = as_matrix(matrix, self._width)
        if self._session is None or not len(rows):
            return rows
        with np.errstate(over="ignore"):
            fed = rows.astype(np.float32) if self._single else rows
        prepared: Floats = self._session.run(None, {FEATURES: fed})[0].astype(np.float64)
        return prepared


def trees_of(model: onnx.ModelProto) -> Trees | None:
    """The operator of trees whose chosen column is the margin, None when it is made in another way."""
    wiring = Wiring(model.graph)
    chosen = _before_choice(wiring, MARGIN)
    node = wiring.maker(chosen.tensor)
    if node is None or not is_sum_of_trees(node) or (chosen.column == 0 and _scores_one_class(node)):
        return None
    return Trees(node, str(node.input[0]), chosen.factor, chosen.offset)


def is_sum_of_trees(node: onnx.NodeProto) -> bool:
    """Whether an operator is one of trees that answers with their sum or mean as it is."""
    if node.domain != ML_DOMAIN or node.op_type not in TREE_OPERATORS:
        return False
    if node.op_type == "TreeEnsemble":
        return attribute(node, "post_transform", 0) == 0 and attribute(node, "aggregate_function", 1) in (0, 1)
    aggregate = attribute(node, "aggregate_function", "SUM")
    return attribute(node, "post_transform", "NONE") == "NONE" and aggregate in ("SUM", "AVERAGE")


def linear_of(model: onnx.ModelProto) -> Linear | None:
    """The linear model whose chosen column is the margin, None when it is made in another way."""
    wiring = Wiring(model.graph)
    chosen = _before_choice(wiring, MARGIN)
    node = wiring.maker(chosen.tensor)
    if node is None:
        return None
    is_operator = node.domain == ML_DOMAIN
    found = _of_linear_operator(node, chosen.column) if is_operator else _of_product(wiring, node, chosen.column)
    if found is None or found.weights.size != _width(model):
        return None
    weights, intercept = found.weights * chosen.factor, found.intercept * chosen.factor + chosen.offset
    return Linear(weights, intercept, found.prepared)


def preparation_of(model: onnx.ModelProto, tensor: str) -> Steps | None:
    """How `tensor` comes from the features, None unless every step treats each feature alone."""
    wiring, operators = Wiring(model.graph), list[str]()
    at, width = tensor, _width(model)
    while at != FEATURES:
        node = wiring.maker(at)
        before = None if node is None else _featurewise(wiring, node, width)
        if node is None or before is None:
            return None
        if node.op_type != "Identity":
            operators.insert(0, node.op_type)
        at = before
    return Steps(tensor, tuple(operators))


def reading_features(model: onnx.ModelProto, trees: Trees, element_type: int) -> onnx.ModelProto:
    """A model of the tree operator alone, whose input `features` is what it reads after preparation."""
    operator = onnx.NodeProto()
    operator.CopyFrom(trees.operator)
    operator.input[:] = [FEATURES]
    alone = onnx.ModelProto()
    alone.CopyFrom(model)
    entry = helper.make_tensor_value_info(FEATURES, element_type, ["N", _width(model)])
    alone.graph.CopyFrom(helper.make_graph([operator], "trees", [entry], []))
    return alone


@dataclass(frozen=True, slots=True)
class _Choice:
    """`offset` + `factor` · one column of a tensor."""

    tensor: str
    column: int = 0
    factor: float = 1.0
    offset: float = 0.0


def _before_choice(wiring: Wiring, tensor: str) -> _Choice:
    """What `tensor` is a column of, through what only picks, converts, negates and takes from a number."""
    choice = _Choice(wiring.unchanged(tensor))
    while True:
        node = wiring.maker(choice.tensor)
        before = None if node is None else _step_before(wiring, node, choice)
        if before is None:
            return choice
        choice = replace(before, tensor=wiring.unchanged(before.tensor))


def _step_before(wiring: Wiring, node: onnx.NodeProto, choice: _Choice) -> _Choice | None:
    if node.op_type == "Gather":
        index = wiring.constant(node.input[1])
        if index is None or index.size != 1 or attribute(node, "axis", 0) != 1:
            return None
        return replace(choice, tensor=str(node.input[0]), column=int(index.reshape(-1)[0]))
    if node.op_type == "Neg":
        return replace(choice, tensor=str(node.input[0]), factor=-choice.factor)
    split = wiring.split_constant(node) if node.op_type == "Sub" else None
    if split is None or split[1].size != 1 or split[2] != 1:
        return None
    offset = choice.offset + choice.factor * float(split[1].reshape(-1)[0])
    return replace(choice, tensor=split[0], factor=-choice.factor, offset=offset)


def _scores_one_class(node: onnx.NodeProto) -> bool:
    """Whether a classifier of two classes has the score of one: in column 1, beside 1 − it, − it or 0."""
    labels = attribute(node, "classlabels_int64s") or attribute(node, "classlabels_strings") or []
    return len(labels) == 2 and len(set(attribute(node, "class_ids", []))) == 1


def _of_linear_operator(node: onnx.NodeProto, column: int) -> Linear | None:
    if node.op_type not in ("LinearClassifier", "LinearRegressor"):
        return None
    if attribute(node, "post_transform", "NONE") != "NONE":
        return None
    coefficients = np.asarray(attribute(node, "coefficients", []), np.float64)
    labels = attribute(node, "classlabels_ints") or attribute(node, "classlabels_strings") or []
    rows = int(attribute(node, "targets", 1))
    if node.op_type == "LinearClassifier":
        rows = max(len(attribute(node, "intercepts", [])), 1)
        column -= rows == 1 and len(labels) == 2  # column 0 has 1 − the score
    intercepts = np.asarray(attribute(node, "intercepts") or np.zeros(rows), np.float64)
    if not coefficients.size or coefficients.size % rows or intercepts.size != rows or not 0 <= column < rows:
        return None
    return Linear(coefficients.reshape(rows, -1)[column], float(intercepts[column]), str(node.input[0]))


def _of_product(wiring: Wiring, last: onnx.NodeProto, column: int) -> Linear | None:
    """x · C + b by MatMul and Add, or by Gemm."""
    intercept = 0.0
    node: onnx.NodeProto | None = last
    if last.op_type == "Add":
        split = wiring.split_constant(last)
        if split is None or not _is_row(split[1]):
            return None
        flat = split[1].reshape(-1).astype(np.float64)
        intercept = float(flat[column if flat.size > 1 else 0])
        node = wiring.maker(wiring.unchanged(split[0]))
    if node is None or node.op_type not in ("MatMul", "Gemm"):
        return None
    weights = wiring.constant(node.input[1])
    if weights is None or weights.ndim not in (1, 2) or wiring.constant(node.input[0]) is not None:
        return None
    matrix = weights.astype(np.float64).reshape(weights.shape[0], -1)
    if node.op_type == "Gemm":
        matrix = (matrix.T if attribute(node, "transB", 0) else matrix) * float(attribute(node, "alpha", 1.0))
        if attribute(node, "transA", 0):
            return None
        if len(node.input) > 2 and node.input[2]:
            added = wiring.constant(node.input[2])
            if added is None or not _is_row(added):
                return None
            flat = added.reshape(-1).astype(np.float64) * float(attribute(node, "beta", 1.0))
            intercept += float(flat[column if flat.size > 1 else 0])
    return Linear(matrix[:, column].copy(), intercept, str(node.input[0])) if column < matrix.shape[1] else None


def _featurewise(wiring: Wiring, node: onnx.NodeProto, width: int) -> str | None:
    """The input of an operator whose column i depends on column i of that input alone; None for any other operator."""
    if node.op_type == "Cast":
        return str(node.input[0]) if attribute(node, "to") in FLOAT_TYPES else None
    if node.op_type in _UNARY:
        return str(node.input[0])
    if node.domain == ML_DOMAIN and node.op_type in ("Scaler", "Imputer"):
        names = ("scale", "offset", "imputed_value_floats", "imputed_value_int64s")
        lengths = {len(attribute(node, name, [0.0])) for name in names}
        return str(node.input[0]) if lengths <= {1, width} else None
    if node.op_type in _WITH_CONSTANT and not node.domain:
        split = wiring.split_constant(node)
        return split[0] if split is not None and _is_row(split[1]) and split[1].size in (1, width) else None
    return None


def _is_row(values: NDArray[Any]) -> bool:
    """Whether a constant is one number, or one for each column."""
    return values.ndim <= 2 and (values.size == 1 or values.shape[-1] == values.size)


def _width(model: onnx.ModelProto) -> int:
    return int(model.graph.input[0].type.tensor_type.shape.dim[1].dim_value)
