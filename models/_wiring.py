"""Which operators make a tensor, what is constant, and the few steps back through a graph that change nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

FLOAT_TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)


class Wiring:
    """A read-only view of a graph whose operators have one maker for each tensor."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._makers = {output: node for node in graph.node for output in node.output}
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}

    def maker(self, tensor: str) -> onnx.NodeProto | None:
        """The operator that makes a tensor, None for inputs and initializers."""
        return self._makers.get(tensor)

    def constant(self, tensor: str) -> NDArray[Any] | None:
        """The values of a tensor that no input changes: an initializer or the output of `Constant`; else None."""
        if tensor in self._initializers:
            return np.asarray(numpy_helper.to_array(self._initializers[tensor]))
        node = self._makers.get(tensor)
        if node is None or node.op_type != "Constant" or len(node.attribute) != 1:
            return None
        return np.asarray(value_of(node.attribute[0]))

    def split_constant(self, node: onnx.NodeProto) -> tuple[str, NDArray[Any], int] | None:
        """Of an operator with two inputs, one of them constant: the other one, the constant, and the other's place."""
        if len(node.input) != 2:
            return None
        for place, tensor in enumerate(node.input):
            values = self.constant(node.input[1 - place])
            if values is not None and self.constant(tensor) is None:
                return tensor, values, place
        return None

    def unchanged(self, tensor: str) -> str:
        """The first tensor on the way back that holds the same numbers, through Identity, Cast, `· 1` and [-1, k]."""
        while True:
            node = self.maker(tensor)
            before = None if node is None else self._same_before(node)
            if before is None:
                return tensor
            tensor = before

    def _same_before(self, node: onnx.NodeProto) -> str | None:
        if node.op_type == "Identity" or (node.op_type == "Cast" and attribute(node, "to") in FLOAT_TYPES):
            return str(node.input[0])
        if node.op_type in ("Mul", "Reshape"):
            split = self.split_constant(node)
            if split is None or (split[2] != 0 and node.op_type == "Reshape"):
                return None
            source, values, _ = split
            keeps_rows = values.ndim == 1 and values.size == 2 and values[0] == -1
            same = bool(np.all(values == 1)) and values.size == 1 if node.op_type == "Mul" else keeps_rows
            return source if same else None
        return None


def needed(nodes: list[onnx.NodeProto], ends: Iterable[str]) -> list[onnx.NodeProto]:
    """The operators that these tensors depend on, in their order."""
    makers = {output: place for place, node in enumerate(nodes) for output in node.output}
    waiting, kept = [makers[end] for end in ends if end in makers], set[int]()
    while waiting:
        place = waiting.pop()
        if place not in kept:
            kept.add(place)
            waiting += [makers[tensor] for tensor in nodes[place].input if tensor in makers]
    return [nodes[place] for place in sorted(kept)]


def up_to(model: onnx.ModelProto, tensor: str) -> onnx.ModelProto:
    """What makes `tensor`, as its only output; ONNX Runtime finds out its type."""
    graph = model.graph
    nodes = needed(list(graph.node), [tensor])
    read = {name for node in nodes for name in node.input}
    held = {entry.name for entry in graph.initializer}
    inputs = [value for value in graph.input if value.name in read or value.name not in held]
    part = onnx.ModelProto()
    part.CopyFrom(model)
    part.graph.CopyFrom(
        helper.make_graph(
            nodes,
            graph.name,
            inputs,
            [onnx.ValueInfoProto(name=tensor)],
            [entry for entry in graph.initializer if entry.name in read],
        )
    )
    return part


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of an operator's attribute: a number, text, list, or array; `default` when it is not given."""
    for given in node.attribute:
        if given.name == name:
            return value_of(given)
    return default


def value_of(given: onnx.AttributeProto) -> Any:
    """What an attribute holds, texts decoded and tensors as arrays."""
    value = onnx.helper.get_attribute_value(given)
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if given.type == onnx.AttributeProto.STRINGS:
        return [text.decode(errors="replace") for text in value]
    return list(value) if given.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS) else value
