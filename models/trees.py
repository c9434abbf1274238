"""The trees of an ONNX graph as plain arrays: what is scored is what is explained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from models._arrays import Bools, Floats, Ints
from models._operators import Members, Nodes, read_nodes, tree_operators
from models.errors import InputError, UnsupportedModelError

FEATURES, MARGIN, SCORE = "features", "margin", "score"
"""Names of the input and the two outputs of every graph that is served."""

TARGET_PROPERTY = "actor_risk.target"
"""Metadata of a graph: which of several targets or classes `margin` and `score` are of."""
COVERS_PROPERTY = "actor_risk.leaf_covers"
"""Metadata of a graph: training rows in each leaf, in the operator's order of leaves, as decimal numbers and spaces."""

LEAF = -1
_COVER_TOLERANCE = 1e-3
_INDEX_DIGITS_MAX = 9


@dataclass(frozen=True, slots=True)
class Tree:
    """One binary tree, node 0 is the root. A row goes left when `x <= threshold`, or, for NaN, when `missing_left`.

    feature     int32[n], LEAF (-1) at a leaf
    threshold   float64[n]
    missing_left bool[n]
    left, right int32[n], indices of nodes
    value       float64[n], the leaf's share of the margin
    cover       float64[n] or None, the training rows that came by each node
    members     of the nodes that go left when `x` is in a set; their threshold means nothing
    """

    feature: Ints
    threshold: Floats
    missing_left: Bools
    left: Ints
    right: Ints
    value: Floats
    cover: Floats | None = None
    members: Mapping[int, Members] = field(default_factory=dict)

    @property
    def leaf_count(self) -> int:
        return int(np.count_nonzero(self.feature == LEAF))


@dataclass(frozen=True, slots=True)
class Ensemble:
    """`constant` and the leaf values of the trees add up to the margin of a row of `feature_count` features.

    `single_precision`: the graph reads float32, so a row is rounded to it before it is compared.
    """

    feature_count: int
    trees: tuple[Tree, ...]
    constant: float = 0.0
    single_precision: bool = False

    @property
    def has_covers(self) -> bool:
        """Whether every tree knows its covers."""
        return all(tree.cover is not None for tree in self.trees)

    def scaled(self, factor: float, offset: float) -> Ensemble:
        """The ensemble whose margin is `offset` + `factor` · the margin of this one."""
        trees = tuple(replace(tree, value=tree.value * factor) for tree in self.trees)
        return replace(self, trees=trees, constant=self.constant * factor + offset)


@dataclass(slots=True)
class TreeBuilder:
    """Collects the nodes of one tree in any order; `build` freezes them. Covers are of the leaves; all or none."""

    rows: list[tuple[int, float, bool, int, int, float]] = field(default_factory=list)
    covers: dict[int, float] = field(default_factory=dict)
    members: dict[int, Members] = field(default_factory=dict)

    def reserve(self) -> int:
        self.rows.append((LEAF, 0.0, False, LEAF, LEAF, 0.0))
        return len(self.rows) - 1

    def set_leaf(self, node: int, value: float, cover: float | None = None) -> None:
        self.rows[node] = (LEAF, 0.0, False, LEAF, LEAF, value)
        if cover is not None:
            self.covers[node] = cover

    def set_split(self, node: int, feature: int, threshold: float, missing_left: bool, left: int, right: int) -> None:
        self.rows[node] = (feature, threshold, missing_left, left, right, 0.0)

    def set_members(self, node: int, feature: int, members: Members, missing_left: bool, left: int, right: int) -> None:
        self.rows[node] = (feature, 0.0, missing_left, left, right, 0.0)
        self.members[node] = members

    def build(self) -> Tree:
        feature, threshold, missing_left, left, right, value = zip(*self.rows, strict=True)
        tree = Tree(
            np.array(feature, np.int32),
            np.array(threshold, np.float64),
            np.array(missing_left, np.bool_),
            np.array(left, np.int32),
            np.array(right, np.int32),
            np.array(value, np.float64),
            members=dict(self.members),
        )
        return with_covers(tree, self.covers) if len(self.covers) == tree.leaf_count else tree


def read_trees(model: onnx.ModelProto, *, leaf_covers: Sequence[float] | None = None) -> Ensemble:
    """The trees whose sum (or mean) is the margin of the graph's chosen target.

    Covers are taken from `leaf_covers` (one for each leaf, in the operator's order), else from the graph's metadata,
    else from `nodes_hitrates` if these are counts that add up; converters mostly write other things there.

    Raises UnsupportedModelError unless the graph has one tree operator and that reads the input `features` itself;
    InputError for covers that do not fit the leaves.
    """
    operator = _operator(model.graph)
    width, single = _input(model.graph)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    if leaf_covers is None and COVERS_PROPERTY in properties:
        leaf_covers = _covers_of(properties[COVERS_PROPERTY])
    nodes = read_nodes(operator)
    target = _target(properties.get(TARGET_PROPERTY), nodes)
    covers = None if leaf_covers is None else _by_leaf(nodes, leaf_covers)
    trees = tuple(_tree(nodes, int(root), target, covers, width) for root in nodes.roots)
    return Ensemble(width, trees, float(nodes.base[target]), single)


def is_index(text: str) -> bool:
    """Whether a text is the number of a class or target: digits, and not so many that it could be none."""
    return text.isdecimal() and len(text) <= _INDEX_DIGITS_MAX


def _covers_of(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split()]
    except ValueError as error:
        raise UnsupportedModelError(
            f"the metadata {COVERS_PROPERTY!r} is no list of numbers: write the rows of each leaf, or leave it out"
        ) from error


def with_covers(tree: Tree, covers: Mapping[int, float]) -> Tree:
    """The tree with the cover of each node, which is the sum of those of the leaves below it. `covers`: by leaf."""
    total = np.zeros(tree.feature.size)
    for node in reversed(list(_parents_first(tree))):
        is_leaf = tree.feature[node] == LEAF
        total[node] = covers[node] if is_leaf else total[tree.left[node]] + total[tree.right[node]]
    return Tree(tree.feature, tree.threshold, tree.missing_left, tree.left, tree.right, tree.value, total, tree.members)


def _parents_first(tree: Tree) -> Iterator[int]:
    waiting = [0]
    while waiting:
        node = waiting.pop()
        yield node
        if tree.feature[node] != LEAF:
            waiting += (int(tree.right[node]), int(tree.left[node]))


def _operator(graph: onnx.GraphProto) -> onnx.NodeProto:
    operators = tree_operators(graph)
    if len(operators) != 1:
        raise UnsupportedModelError(
            f"the graph has {len(operators)} tree operators (TreeEnsemble, TreeEnsembleClassifier, "
            "TreeEnsembleRegressor); one is explained"
        )
    if list(operators[0].input) != [FEATURES]:
        raise UnsupportedModelError(
            f"the trees do not read the input {FEATURES!r} itself: put preparation into features"
        )
    return operators[0]


def _input(graph: onnx.GraphProto) -> tuple[int, bool]:
    """The number of features, and whether they are float32."""
    for value in graph.input:
        tensor = value.type.tensor_type
        dims = tensor.shape.dim
        known = tensor.elem_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
        if value.name == FEATURES and known and len(dims) == 2 and dims[1].dim_value > 0:
            return int(dims[1].dim_value), tensor.elem_type == onnx.TensorProto.FLOAT
    raise UnsupportedModelError(f"the graph needs an input {FEATURES!r} of float or double [N, number of features]")


def _target(given: str | None, nodes: Nodes) -> int:
    targets = nodes.value.shape[1]
    if targets == 1:
        return 0
    if given is None or not is_index(given) or int(given) >= targets:
        raise UnsupportedModelError(
            f"the trees have {targets} targets and the metadata {TARGET_PROPERTY!r} is {given and given[:20]!r}: "
            "set it to the number of the one that is served"
        )
    return int(given)


def _by_leaf(nodes: Nodes, covers: Sequence[float]) -> dict[int, float]:
    if len(covers) != nodes.leaf_order.size or not all(0 <= cover < np.inf for cover in covers):
        raise InputError(
            f"{len(covers)} covers for {nodes.leaf_order.size} leaves: give the rows of each leaf, none negative"
        )
    return dict(zip(nodes.leaf_order.tolist(), map(float, covers), strict=True))


def _tree(nodes: Nodes, root: int, target: int, covers: Mapping[int, float] | None, width: int) -> Tree:
    builder = TreeBuilder()
    sources: dict[int, int] = {}
    waiting = [(root, builder.reserve())]
    while waiting:
        source, node = waiting.pop()
        if len(builder.rows) > nodes.is_leaf.size:
            raise UnsupportedModelError("the graph's nodes share children or form a loop: they must be trees")
        sources[node] = source
        if nodes.is_leaf[source]:
            builder.set_leaf(node, float(nodes.value[source, target]), None if covers is None else covers[source])
            continue
        left, right = builder.reserve(), builder.reserve()
        _set_node(builder, nodes, source, node, left, right)
        waiting += ((int(nodes.left[source]), left), (int(nodes.right[source]), right))
    tree = builder.build()
    if np.any(tree.feature >= width):
        raise UnsupportedModelError(f"a node reads a feature that is not among the {width} of the input: export again")
    return tree if covers is not None else _with_hitrates(tree, nodes, sources)


def _set_node(builder: TreeBuilder, nodes: Nodes, source: int, node: int, left: int, right: int) -> None:
    feature, missing_left = int(nodes.feature[source]), bool(nodes.missing_left[source])
    if feature < 0:
        raise UnsupportedModelError("a node reads a feature with a negative number: export the model again")
    if source in nodes.members:
        builder.set_members(node, feature, nodes.members[source], missing_left, left, right)
    else:
        builder.set_split(node, feature, float(nodes.threshold[source]), missing_left, left, right)


def _with_hitrates(tree: Tree, nodes: Nodes, sources: Mapping[int, int]) -> Tree:
    """The tree with the operator's hit rates as covers, if every node has as many rows as its children together."""
    if nodes.hitrate is None:
        return tree
    rates = nodes.hitrate[[sources[node] for node in range(tree.feature.size)]]
    inner = tree.feature != LEAF
    gaps = np.abs(rates - rates[tree.left] - rates[tree.right])[inner]
    if not rates[0] > 0 or np.any(rates < 0) or np.any(gaps > _COVER_TOLERANCE * rates[inner]):
        return tree
    return with_covers(tree, {int(leaf): float(rates[leaf]) for leaf in np.flatnonzero(~inner)})
