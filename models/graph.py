"""A classifier or regressor from any exporter as the one form that is served.

          features [N, F]  ──►  the exporter's operators  ──►  margin [N, 1]  ──►  score [N, 1]

The exporter's operators stay as they are: their numbers are not touched, nothing is trained again or moved to another
precision. What changes is around them: labels and ZipMap are cut off, one class or target is chosen, a post-transform
that an operator applies itself is taken out and applied behind it, so that the margin can be seen, and margin and
score leave in double precision. What was chosen is written into the model's metadata.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper

from models._wiring import FLOAT_TYPES, Wiring, attribute, needed
from models.admission import ML_DOMAIN, TREE_OPERATORS, named
from models.errors import UnsupportedModelError
from models.trees import FEATURES, MARGIN, SCORE, is_index

LOG_ODDS, RAW_MARGIN, PROBABILITY, VALUE = "log_odds", "raw_margin", "probability", "value"
"""What a margin is: logistic(margin) is the score; what the score is made of in another way, the class's input of a
softmax or log-odds before a calibration by steps; the score itself; a regression's value, which is the score too."""

SPACE_PROPERTY = "actor_risk.output_space"
_TARGET, _TARGET_NAME = "actor_risk.target", "actor_risk.target_name"
_OURS = (SPACE_PROPERTY, _TARGET, _TARGET_NAME)
_REGRESSORS = ("TreeEnsembleRegressor", "LinearRegressor", "SVMRegressor")
_PROBABILITIES = ("probabilities", "output_probability", "probability", "class_probabilities")
_OPSET_MIN = 13
_IR_VERSION_MIN = 4

_KEEPS_DOUBLE = frozenset({"TreeEnsemble", "Imputer", "ArrayFeatureExtractor"})


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """What a served graph says about itself.

    width        number of features
    input_type   "float" or "double", of the input `features`
    is_single    whether the margin is computed in float32 anywhere on its way
    target       index of the class or target that is scored
    target_name  its label, empty when the graph names none
    output_space LOG_ODDS, RAW_MARGIN, PROBABILITY or VALUE
    """

    width: int
    input_type: str
    is_single: bool
    target: int
    target_name: str
    output_space: str


def facts_of(model: onnx.ModelProto) -> GraphFacts:
    """The facts of a graph that is in the served form; graphs of `models.export`, which name no target, are log-odds.

    Raises UnsupportedModelError for any other form.
    """
    inputs, outputs = list(model.graph.input), {value.name for value in model.graph.output}
    if [value.name for value in inputs] != [FEATURES] or not outputs >= {MARGIN, SCORE}:
        raise UnsupportedModelError(
            f"a served graph has one input {FEATURES!r} and the outputs {MARGIN!r} and {SCORE!r}; this one has "
            f"{named([v.name for v in inputs])} and {named(sorted(outputs))}: import it with `actor-risk models import`"
        )
    given = {entry.key: entry.value for entry in model.metadata_props}
    space, target = given.get(SPACE_PROPERTY, LOG_ODDS), given.get(_TARGET, "0")
    if space not in (LOG_ODDS, RAW_MARGIN, PROBABILITY, VALUE) or not is_index(target):
        raise UnsupportedModelError("the graph's metadata names no output space and target: import it again")
    if space in (PROBABILITY, VALUE):
        _check_same(model.graph, space)
    is_double = inputs[0].type.tensor_type.elem_type == TensorProto.DOUBLE
    return GraphFacts(
        width=_width(inputs[0], None),
        input_type="double" if is_double else "float",
        is_single=not is_double or any(map(_answers_single, needed(list(model.graph.node), [MARGIN]))),
        target=int(target),
        target_name=given.get(_TARGET_NAME, ""),
        output_space=space,
    )


def _answers_single(node: onnx.NodeProto) -> bool:
    """Whether an operator answers in float32 to whatever it gets: most of ai.onnx.ml do, trees before version 5 too."""
    if node.domain == ML_DOMAIN:
        return node.op_type not in _KEEPS_DOUBLE
    return bool(node.op_type == "Cast" and attribute(node, "to") in (TensorProto.FLOAT, TensorProto.FLOAT16))


def _check_same(graph: onnx.GraphProto, space: str) -> None:
    """The margin stands for the score when it is served: see `models.scorer`."""
    wiring = Wiring(graph)
    if wiring.unchanged(MARGIN) != wiring.unchanged(SCORE):
        raise UnsupportedModelError(
            f"the margin is a {space}, so it must be the score too, and {SCORE!r} is made in another way: make both "
            f"outputs of one tensor, or set the metadata {SPACE_PROPERTY!r} to what the margin is"
        )


def is_served_form(model: onnx.ModelProto) -> bool:
    """Whether the graph has the input `features` and the outputs `margin` and `score` already."""
    names = [value.name for value in model.graph.input]
    return names == [FEATURES] and {MARGIN, SCORE} <= {value.name for value in model.graph.output}


def normalise(model: onnx.ModelProto, *, target: str | None = None, width: int | None = None) -> onnx.ModelProto:
    """The model in the served form; the same model when it is in it already.

    `target` is the label or index of the class (or the index of the target) to be scored: the second of two classes by
    default, to be stated for more. `width` is the number of features, for graphs that leave it open.
    Raises UnsupportedModelError when there is no single float input, no output to choose, or no such target, or when a
    file in the served form is of another one.
    """
    if is_served_form(model):
        _check_target(model, target)
        return model
    return _Rewriting(model, width).run(target)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the graph answers: the tensor, its columns if known, class labels, and whether it is a classifier's."""

    tensor: str
    columns: int | None
    labels: tuple[str, ...]
    is_classifier: bool


def answer_name(model: onnx.ModelProto) -> str:
    """The output of an exporter's graph that is the answer: probabilities, a value, or a ZipMap of them.

    Raises UnsupportedModelError when there is none, or more than one.
    """
    floats = [value.name for value in model.graph.output if _may_be_answer(value)]
    chosen = [name for name in floats if name in _PROBABILITIES] if len(floats) > 1 else floats
    if len(chosen) != 1:
        raise UnsupportedModelError(
            f"the graph has {len(floats)} outputs of floats among {named([v.name for v in model.graph.output])}: "
            "export it with one, the probabilities of the classes or the value"
        )
    return str(chosen[0])


def _may_be_answer(value: onnx.ValueInfoProto) -> bool:
    kind = value.type.WhichOneof("value")
    return kind == "sequence_type" or (kind == "tensor_type" and value.type.tensor_type.elem_type in FLOAT_TYPES)


def _check_target(model: onnx.ModelProto, target: str | None) -> None:
    given = {entry.key: entry.value for entry in model.metadata_props}
    if target not in (None, given.get(_TARGET), given.get(_TARGET_NAME)):
        raise UnsupportedModelError(
            f"the file is in the served form already, and not made for the target {named(target)!r}: leave the target "
            "out, or import the exporter's file"
        )


class _Rewriting:
    """One graph on its way to the served form."""

    def __init__(self, model: onnx.ModelProto, width: int | None) -> None:
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        self._graph = self._model.graph
        self._input = _only_input(self._graph)
        self._width = _width(self._input, width)
        self._input_type = self._input.type.tensor_type.elem_type
        self._wiring = Wiring(self._graph)
        self._added: list[onnx.NodeProto] = []
        self._made = 0

    def run(self, target: str | None) -> onnx.ModelProto:
        answer = self._answer()
        place = _target_of(answer, target)
        margin, score, space = self._margin_and_score(answer, place)
        self._finish(margin, score)
        props = {_TARGET: str(place), SPACE_PROPERTY: space}
        if answer.labels:
            props[_TARGET_NAME] = answer.labels[place]
        _set_metadata(self._model, props)
        return self._model

    # What the graph answers

    def _answer(self) -> _Answer:
        value = next(value for value in self._graph.output if value.name == answer_name(self._model))
        labels: tuple[str, ...] = ()
        tensor, columns = value.name, _columns(value)
        labelled = not all(_may_be_answer(output) for output in self._graph.output)
        if value.type.WhichOneof("value") == "sequence_type":
            tensor, labels = self._behind_zipmap(value.name)
            labelled = True
        maker = self._wiring.maker(self._through_normalizer(self._wiring.unchanged(tensor)))
        labels = (() if maker is None else _labels_of(maker)) or labels
        if labels:
            columns = len(labels)
        elif maker is not None and maker.op_type in _REGRESSORS:
            columns = int(attribute(maker, "n_targets", attribute(maker, "targets", 1)))
        return _Answer(tensor, columns, labels, labelled or bool(labels))

    def _behind_zipmap(self, name: str) -> tuple[str, tuple[str, ...]]:
        node = self._wiring.maker(self._wiring.unchanged(name))
        if node is None or node.op_type != "ZipMap":
            raise UnsupportedModelError(
                f"the output {named(name)!r} is a sequence that no ZipMap makes: export it with zipmap=False"
            )
        return str(node.input[0]), _labels_of(node)

    # Margin and score

    def _margin_and_score(self, answer: _Answer, place: int) -> tuple[str, str, str]:
        """Two tensors of shape [N, 1] in double, and the output space."""
        core = self._through_normalizer(self._wiring.unchanged(answer.tensor))
        node = self._wiring.maker(core)
        if node is not None and node.domain == ML_DOMAIN:
            post = _post_transform(node)
            if place == 0 and _weighs_second_only(node):
                raise UnsupportedModelError(
                    f"all weights of the trees are of class {named(answer.labels[1])!r}, and ONNX Runtime has no score "
                    f"of {named(answer.labels[0])!r}: score {named(answer.labels[1])!r}"
                )
            if _has_one_score(node):
                return self._of_one_score(node, core, post, place)
            if post in ("LOGISTIC", "SOFTMAX"):
                return self._taken_out(node, core, post, answer, place)
        elif node is not None:
            found = self._visible_margin(node, answer, place)
            if found is not None:
                return found
        column = self._column(answer.tensor, place, answer.columns)
        return column, column, PROBABILITY if answer.is_classifier else VALUE

    def _taken_out(
        self, node: onnx.NodeProto, core: str, post: str, answer: _Answer, place: int
    ) -> tuple[str, str, str]:
        """The operator's own post-transform becomes an operator behind it."""
        _take_out(node)
        if post == "LOGISTIC":
            return self._logistic(self._column(core, place, answer.columns))
        margin = self._column(core, place, answer.columns)
        shares = self._add("Softmax", self._double(core), axis=1)
        return margin, self._picked(shares, place, answer.columns), RAW_MARGIN

    def _of_one_score(self, node: onnx.NodeProto, core: str, post: str, place: int) -> tuple[str, str, str]:
        """Of two classes, only the second one's score is computed. The first one's is its opposite before a logistic
        link, else the rest to 1: ONNX Runtime applies no other link to one score."""
        _take_out(node)
        second = self._column(core, 1, 2)
        if post == "LOGISTIC":
            return self._logistic(second if place else self._add("Neg", second))
        column = second if place else self._add("Sub", self._hold(TensorProto.DOUBLE, [], [1.0]), second)
        return column, column, PROBABILITY

    def _through_normalizer(self, tensor: str) -> str:
        """Past a Normalizer that divides the probabilities of a softmax by their sum, which is 1."""
        node = self._wiring.maker(tensor)
        if node is None or node.op_type != "Normalizer" or attribute(node, "norm") != "L1":
            return tensor
        before = self._wiring.unchanged(node.input[0])
        maker = self._wiring.maker(before)
        return before if maker is not None and _post_transform(maker) == "SOFTMAX" else tensor

    def _visible_margin(self, node: onnx.NodeProto, answer: _Answer, place: int) -> tuple[str, str, str] | None:
        """Margin and score of a graph that applies its link by operators of its own, None when it is not recognised."""
        if node.op_type == "Sigmoid":
            return self._logistic(self._column(node.input[0], place, answer.columns))
        if node.op_type == "Softmax" and attribute(node, "axis", -1) in (1, -1):
            margin = self._column(node.input[0], place, answer.columns)
            return margin, self._column(node.output[0], place, answer.columns), RAW_MARGIN
        if answer.columns == 2:
            logits = self._logits_of_pair(node)
            if logits is not None:
                second = self._column(logits, 0, 1)
                return self._logistic(second if place else self._add("Neg", second))
            mirrored = self._mirrored_logits(node)
            return None if mirrored is None else self._logistic(self._column(mirrored, place, 2))
        return None

    def _logistic(self, margin: str) -> tuple[str, str, str]:
        return margin, self._add("Sigmoid", margin), LOG_ODDS

    def _logits_of_pair(self, node: onnx.NodeProto) -> str | None:
        """The margin behind [1 − p, p] with p = sigmoid(margin) of shape [N, 1]."""
        if node.op_type != "Concat" or attribute(node, "axis") not in (1, -1) or len(node.input) != 2:
            return None
        other, positive = self._wiring.maker(node.input[0]), self._wiring.unchanged(node.input[1])
        sigmoid = self._wiring.maker(positive)
        if other is None or sigmoid is None or (other.op_type, sigmoid.op_type) != ("Sub", "Sigmoid"):
            return None
        split = self._wiring.split_constant(other)
        if split is None or split[2] != 1 or not (split[1] == 1).all():
            return None
        return str(sigmoid.input[0]) if self._wiring.unchanged(split[0]) == positive else None

    def _mirrored_logits(self, node: onnx.NodeProto) -> str | None:
        """[−m, m] behind sigmoid([−m, m]) ÷ its sum, which is 1: how scikit-learn's logistic regression is exported."""
        if node.op_type != "Div":
            return None
        shares, total = (self._wiring.unchanged(tensor) for tensor in node.input)
        sigmoid, summing = self._wiring.maker(shares), self._wiring.maker(total)
        if sigmoid is None or summing is None or (sigmoid.op_type, summing.op_type) != ("Sigmoid", "ReduceSum"):
            return None
        absolute = self._wiring.maker(summing.input[0])
        if absolute is None or absolute.op_type != "Abs" or self._wiring.unchanged(absolute.input[0]) != shares:
            return None
        adding = self._wiring.maker(sigmoid.input[0])
        added = None if adding is None or adding.op_type != "Add" else self._wiring.split_constant(adding)
        product = None if added is None else self._wiring.maker(added[0])
        weights = None if product is None or product.op_type != "MatMul" else self._wiring.constant(product.input[1])
        if added is None or weights is None or weights.ndim != 2 or weights.shape[1] != 2 or added[1].size != 2:
            return None
        intercepts = added[1].reshape(2)
        mirrored = (weights[:, 0] == -weights[:, 1]).all() and intercepts[0] == -intercepts[1]
        return str(sigmoid.input[0]) if mirrored else None

    # New operators

    def _column(self, tensor: str, place: int, columns: int | None) -> str:
        """Column `place` of a tensor as [N, 1] in double."""
        return self._double(self._picked(tensor, place, columns))

    def _picked(self, tensor: str, place: int, columns: int | None) -> str:
        if columns != 1:
            return self._add("Gather", tensor, self._constant([place]), axis=1)
        maker = self._wiring.maker(tensor)
        if maker is not None and maker.op_type in _REGRESSORS:  # [N, 1], whatever they declare
            return tensor
        return self._add("Reshape", tensor, self._constant([-1, 1]))

    def _double(self, tensor: str) -> str:
        return self._add("Cast", tensor, to=TensorProto.DOUBLE)

    def _constant(self, values: list[int]) -> str:
        return self._hold(TensorProto.INT64, [len(values)], values)

    def _hold(self, kind: int, dims: list[int], values: Sequence[float]) -> str:
        self._made += 1
        name = f"actor_risk/{self._made}"
        self._graph.initializer.append(helper.make_tensor(name, kind, dims, values))
        return name

    def _add(self, operator: str, *inputs: str, **attributes: int) -> str:
        self._made += 1
        output = f"actor_risk/{self._made}"
        self._added.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    # The file

    def _finish(self, margin: str, score: str) -> None:
        """Only what margin and score need stays, under names that cannot meet ours."""
        graph, model = self._graph, self._model
        nodes = needed([*graph.node, *self._added], (margin, score))
        if score == margin:
            score = f"{margin}/score"
            nodes.append(helper.make_node("Identity", [margin], [score]))
        names = {self._input.name: FEATURES, margin: MARGIN, score: SCORE}
        for node in nodes:
            node.input[:] = [_inner(tensor, names) for tensor in node.input]
            node.output[:] = [_inner(tensor, names) for tensor in node.output]
        used = {tensor for node in nodes for tensor in node.input}
        initializers = [tensor for tensor in graph.initializer if _inner(tensor.name, names) in used]
        for tensor in initializers:
            tensor.name = _inner(tensor.name, names)
        served = helper.make_graph(
            nodes,
            "actor_risk",
            [helper.make_tensor_value_info(FEATURES, self._input_type, ["N", self._width])],
            [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["N", 1]) for name in (MARGIN, SCORE)],
            initializers,
        )
        graph.CopyFrom(served)
        model.ir_version = max(model.ir_version, _IR_VERSION_MIN)  # before it, initializers were inputs as well
        opsets = {"" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in model.opset_import}
        opsets.setdefault("", _OPSET_MIN)
        del model.opset_import[:]
        model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in opsets.items())


def _only_input(graph: onnx.GraphProto) -> onnx.ValueInfoProto:
    held = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in held]
    if len(inputs) != 1 or inputs[0].type.tensor_type.elem_type not in FLOAT_TYPES:
        raise UnsupportedModelError(
            f"the graph has the inputs {named([value.name for value in inputs])}: one of float or double [N, F] is "
            "served; export it so, with texts and categories encoded as numbers"
        )
    return inputs[0]


def _width(value: onnx.ValueInfoProto, given: int | None) -> int:
    dims = value.type.tensor_type.shape.dim
    declared = dims[1].dim_value if len(dims) == 2 else 0
    if len(dims) not in (0, 2) or declared < 0 or (given and declared and declared != given):
        raise UnsupportedModelError(
            f"the input {named(value.name)!r} has the shape {named([d.dim_value or d.dim_param for d in dims])}, and a "
            f"matrix of rows with {given or 'all'} features each is served"
        )
    if not (declared or given):
        raise UnsupportedModelError(f"the input {named(value.name)!r} has no fixed width: name the features")
    return int(declared or given or 0)


def _columns(value: onnx.ValueInfoProto) -> int | None:
    """Columns of an output by its declared shape: 1 for a vector, None when it is open."""
    dims = value.type.tensor_type.shape.dim
    return 1 if len(dims) == 1 else (int(dims[1].dim_value) or None) if len(dims) == 2 else None


def _labels_of(node: onnx.NodeProto) -> tuple[str, ...]:
    for name in ("classlabels_int64s", "classlabels_ints", "classlabels_strings"):
        labels = attribute(node, name)
        if labels:
            return tuple(str(label) for label in labels)
    return ()


def _post_transform(node: onnx.NodeProto) -> str:
    """The post-transform that an operator of trees or of a linear model applies itself, if it can be taken out."""
    given = attribute(node, "post_transform", "NONE")
    if node.op_type == "TreeEnsemble":
        return ("NONE", "SOFTMAX", "LOGISTIC")[given] if given in (0, 1, 2) else "OTHER"
    if node.op_type not in TREE_OPERATORS and node.op_type not in ("LinearClassifier", "LinearRegressor"):
        return "OTHER"
    return "OTHER" if given == "SOFTMAX" and _has_one_score(node) else str(given)


def _has_one_score(node: onnx.NodeProto) -> bool:
    """Whether a classifier of two classes computes one score."""
    if len(_labels_of(node)) != 2:
        return False
    if node.op_type == "TreeEnsembleClassifier":
        return set(attribute(node, "class_ids", [])) == {0}
    return node.op_type == "LinearClassifier" and len(attribute(node, "intercepts", [])) == 1


def _weighs_second_only(node: onnx.NodeProto) -> bool:
    """Whether a classifier by trees has two classes and weights of the second alone, beside which stands always 0."""
    is_classifier = node.op_type == "TreeEnsembleClassifier" and len(_labels_of(node)) == 2
    return is_classifier and set(attribute(node, "class_ids", [])) == {1}


def _take_out(node: onnx.NodeProto) -> None:
    """Has the operator answer without its post-transform."""
    for given in node.attribute:
        if given.name == "post_transform":
            given.CopyFrom(helper.make_attribute("post_transform", _none_of(node)))


def _none_of(node: onnx.NodeProto) -> int | str:
    return 0 if node.op_type == "TreeEnsemble" else "NONE"


def _target_of(answer: _Answer, target: str | None) -> int:
    """The index that a label or index names. Raises UnsupportedModelError when it must be stated, or is not there."""
    if target is not None and target in answer.labels:
        return answer.labels.index(target)
    if target is not None and is_index(target) and int(target) < (answer.columns or int(target) + 1):
        return int(target)
    choices = ", ".join(named(label) for label in answer.labels) or f"0 to {(answer.columns or 1) - 1}"
    if target is not None:
        raise UnsupportedModelError(f"the graph has no class or target {named(target)!r}: choose from {choices}")
    if answer.columns is None:
        raise UnsupportedModelError("the graph does not say how many classes or targets it has: state the one to score")
    if answer.columns > 2 or (answer.columns == 2 and not answer.is_classifier):
        raise UnsupportedModelError(
            f"the graph has {answer.columns} classes or targets, state the one to score: {choices}"
        )
    return answer.columns - 1


def _inner(tensor: str, names: dict[str, str]) -> str:
    """A tensor's new name: what `names` says, else one with a prefix; an input that is left out stays so."""
    return names.get(tensor) or (tensor and f"graph/{tensor}")


def _set_metadata(model: onnx.ModelProto, props: dict[str, str]) -> None:
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key not in _OURS}
    del model.metadata_props[:]
    helper.set_model_props(model, kept | props)
