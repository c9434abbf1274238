"""Which operators take the shape of their output from a tensor, and whether the values of a row reach that tensor.

features ──────────────► floor, cast … ──► Range     refused: a row would say how much memory and time it takes
features ──► Shape ────► gather, mul … ──► Range     allowed: the number of rows says it
constants ─────────────► cast, mul …   ──► Range     allowed
"""

from __future__ import annotations

import onnx

_REDUCTIONS = ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")
_SHAPE_INPUTS: dict[str, tuple[int, ...]] = {f"Reduce{kind}": (1,) for kind in _REDUCTIONS} | {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1, 2),
    "TopK": (1,),
    "Unsqueeze": (1,),
}
"""Of the operators that `models.admission` allows, in all their versions: the inputs whose values shape the output."""
_OF_SHAPES = ("Shape", "Size")


def shaped_by_values(graph: onnx.GraphProto) -> onnx.NodeProto | None:
    """The first operator that takes a shape from values of the graph's inputs, None when there is none.

    Without one, what a graph takes depends on its constants and the number of rows, whatever the rows hold. Operators
    must be in order, makers before readers, as ONNX has it.
    """
    of_values = {value.name for value in graph.input} - {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        shaping = [node.input[place] for place in _SHAPE_INPUTS.get(node.op_type, ()) if place < len(node.input)]
        if not of_values.isdisjoint(shaping):
            return node
        if node.op_type not in _OF_SHAPES and not of_values.isdisjoint(node.input):
            of_values.update(tensor for tensor in node.output if tensor)
    return None
