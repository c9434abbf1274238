"""A view's layout as the flat list of integers that the compiled core follows.

0 hops   1 value columns   2 distinct columns   3 widest state   4 most sets of a hop
for each hop, by growing hop:
    hop ms, width, slots, sets, windows, where the next hop begins
    for each slot: partial, value column, first state column, parameter
    for each set: distinct column
    for each window, by growing length: length ms, outputs
        for each output: place, function, two state columns, set, parameter
"""

from __future__ import annotations

from typing import Any

import numpy as np

from materialize.kernel._aggregations import COUNT_DISTINCT
from materialize.kernel._views import HopLayout, Output, Slot, ViewSpec

Program = np.ndarray[Any, np.dtype[np.int64]]

PARTIALS = {"count": 0, "sum": 1, "min": 2, "max": 3, "moments": 4, "last": 5, "first": 6, "decayed": 7}
FUNCTIONS = {
    "count": 0,
    "sum": 0,
    "mean": 1,
    "min": 2,
    "max": 2,
    "var": 3,
    "std": 4,
    "last": 5,
    "first": 5,
    COUNT_DISTINCT: 6,
    "decayed_sum": 7,
}
HOPS_AT = 5
HOP_HEAD = 6
SLOT_SIZE = 4
OUTPUT_SIZE = 6


def compile_program(spec: ViewSpec) -> Program:
    """The view's program, int64[…]; see the module."""
    widths = [layout.width for layout in spec.hops]
    sets = [len(layout.distinct) for layout in spec.hops]
    program = [len(spec.hops), len(spec.value_columns), len(spec.distinct_columns), max(widths), max(sets)]
    for layout in spec.hops:
        program += _hop(layout, len(program))
    return np.array(program, dtype=np.int64)


def program_reaches(spec: ViewSpec) -> Program:
    """How far back the windows of each hop reach, int64[hops], milliseconds."""
    return np.array([layout.reach_ms for layout in spec.hops], dtype=np.int64)


def hop_starts(program: Program) -> list[int]:
    """Where each hop's part of a program begins."""
    starts = [HOPS_AT]
    for _ in range(int(program[0]) - 1):
        starts.append(int(program[starts[-1] + HOP_HEAD - 1]))
    return starts


def _hop(layout: HopLayout, at: int) -> list[int]:
    body = [number for slot in layout.slots for number in _slot(slot)]
    body += layout.distinct
    for window, outputs in layout.outputs:
        body += [window.length_ms, len(outputs)]
        body += [number for output in outputs for number in _output(output)]
    sizes = [layout.hop_ms, layout.width, len(layout.slots), len(layout.distinct), len(layout.outputs)]
    return [*sizes, at + HOP_HEAD + len(body), *body]


def _slot(slot: Slot) -> list[int]:
    return [PARTIALS[slot.partial.kind], slot.position, slot.first, slot.partial.parameter]


def _output(output: Output) -> list[int]:
    a, b = [*output.state, 0, 0][:2]
    distinct = 0 if output.distinct is None else output.distinct
    return [output.place, FUNCTIONS[output.function.kind], a, b, distinct, output.function.parameter]
