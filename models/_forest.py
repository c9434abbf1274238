"""The margin of trees by walking them, each node packed into a quarter of a cache line.

ONNX Runtime walks the same trees and adds up the same leaves in the same order. It takes five times as long: its nodes
are larger, and to call it takes as long as to walk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models._arrays import Floats, Ints
from models._compiled import compiled
from models._operators import Nodes
from models.errors import UnsupportedModelError

_BLOCK = 64
"""Rows that go through each tree together."""
_NODES_MAX = 2**28
_LEAF = -1
_TEST, _LEFT = 2, 3


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees of `width` features, one target; a node is two float64 or, the same bytes, four int32:

    numbers[2 n]    threshold, or the value of a leaf
    links[4 n + 2]  2 · feature + missing_left, −1 at a leaf
    links[4 n + 3]  the left child; the right one is beside it

    `roots` int32[trees], in the order in which the operator adds up; `base` is added last. `single`: values are rounded
    to float32 before they are compared, and so is every sum. `single_answer`: the last sum is.
    """

    width: int
    numbers: Floats
    links: Ints
    roots: Ints
    base: float
    single: bool
    single_answer: bool

    def margins(self, rows: Floats) -> Floats:
        """Sums float64[N] of rows float64[N, width], C-contiguous. A row gives the same bytes alone and in a batch."""
        sums = np.zeros(len(rows))
        _walk(self.numbers, self.links, self.roots, self.base, self.single, self.single_answer, rows, sums)
        return sums

    def edges(self, count: int, random: np.random.Generator) -> tuple[NDArray[np.int64], Floats]:
        """`count` tests drawn from all: feature int64[count] and threshold float64[count]; none when there is none."""
        places = np.flatnonzero(self.links[_TEST::4] != _LEAF)
        drawn = random.choice(places, count if places.size else 0)
        return self.links[4 * drawn + _TEST].astype(np.int64) // 2, self.numbers[2 * drawn]


def forest_of(
    nodes: Nodes, width: int, target: int = 0, *, single: bool = False, single_answer: bool = False
) -> Forest | None:
    """The nodes of an operator packed, for its only target or this one of several; None for those that test sets.

    Raises UnsupportedModelError for nodes that share children or form a loop.
    """
    targets = nodes.value.shape[1]
    if nodes.members or not (targets == 1 or target < targets) or nodes.is_leaf.size > _NODES_MAX:
        return None
    column = target if targets > 1 else 0
    source = _by_tree(nodes)
    place = np.zeros(nodes.is_leaf.size, np.int64)
    place[source] = np.arange(source.size)
    is_leaf = nodes.is_leaf[source]
    numbers = np.zeros(2 * source.size)
    numbers[::2] = np.where(is_leaf, nodes.value[source, column], nodes.threshold[source])
    links = numbers.view(np.int32)
    links[_TEST::4] = np.where(is_leaf, _LEAF, 2 * nodes.feature[source] + nodes.missing_left[source])
    links[_LEFT::4] = np.where(is_leaf, 0, place[nodes.left[source]])
    roots, base = place[nodes.roots].astype(np.int32), float(nodes.base[column])
    return Forest(width, numbers, links, roots, base, single, single_answer)


def _by_tree(nodes: Nodes) -> NDArray[np.int64]:
    """All nodes, tree by tree, and in each level by level, so that siblings are neighbours."""
    level, tree = nodes.roots, np.arange(nodes.roots.size)
    levels, trees, count = [level], [tree], level.size
    while level.size:
        inner = ~nodes.is_leaf[level]
        level, tree = level[inner], np.repeat(tree[inner], 2)
        level = np.column_stack([nodes.left[level], nodes.right[level]]).reshape(-1)
        levels.append(level)
        trees.append(tree)
        count += level.size
        if count > nodes.is_leaf.size:
            raise UnsupportedModelError("the graph's nodes share children or form a loop: they must be trees")
    return np.asarray(np.concatenate(levels)[np.argsort(np.concatenate(trees), kind="stable")], np.int64)


@compiled
def _walk(
    numbers: Floats,
    links: Ints,
    roots: Ints,
    base: float,
    single: bool,
    single_answer: bool,
    rows: Floats,
    sums: Floats,
) -> None:
    """Adds to sums float64[N] the leaves that rows float64[N, F] reach, and `base`."""
    width = rows.shape[1]
    values = np.empty(min(_BLOCK, rows.shape[0]) * 2 * width)
    for begin in range(0, rows.shape[0], _BLOCK):
        size = min(_BLOCK, rows.shape[0] - begin)
        _read_values(rows, begin, size, single, values)
        for t in range(roots.size):
            root = np.uint64(roots[t])
            for r in range(size):
                first = np.uint64(r * 2 * width)
                node = root
                test = links[np.uint64(4) * node + np.uint64(_TEST)]
                while test >= 0:
                    goes_right = not values[first + np.uint64(test)] <= numbers[np.uint64(2) * node]
                    node = np.uint64(links[np.uint64(4) * node + np.uint64(_LEFT)]) + np.uint64(goes_right)
                    test = links[np.uint64(4) * node + np.uint64(_TEST)]
                total = sums[begin + r] + numbers[np.uint64(2) * node]
                sums[begin + r] = np.float64(np.float32(total)) if single else total
        for r in range(begin, begin + size):
            total = sums[r] + base
            sums[r] = np.float64(np.float32(total)) if single or single_answer else total


@compiled
def _read_values(rows: Floats, begin: int, size: int, single: bool, values: Floats) -> None:
    """Each value twice, float64[size, F, 2]: as it is, which for NaN fails every test, and −∞ for NaN, which passes."""
    width = rows.shape[1]
    for r in range(size):
        for f in range(width):
            x = rows[begin + r, f]
            if single:
                x = np.float64(np.float32(x))
            at = 2 * (r * width + f)
            values[at] = x
            values[at + 1] = -np.inf if x != x else x  # only NaN differs from itself


@compiled
def logistic(margins: Floats) -> Floats:
    """1 / (1 + e^−m) of float64[N], each for itself: the same bytes alone and in a batch."""
    scores = np.empty(margins.size)
    for n in range(margins.size):
        scores[n] = 1.0 / (1.0 + np.exp(-margins[n]))
    return scores
