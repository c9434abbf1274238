"""The attributes of ONNX's three tree operators as one set of arrays, with what ONNX Runtime makes of them.

`TreeEnsembleClassifier` and `TreeEnsembleRegressor` (ai.onnx.ml 1 and 3) and `TreeEnsemble` (5): see
https://onnx.ai/onnx/operators/. Where their text leaves room, ONNX Runtime is followed, since it is what scores:

- a missing value (NaN) goes to the true side when the node tracks missing values there, else every comparison with it
  is false; except `!=`, which is true for NaN whatever the node says;
- a set of members from 0 to 30, at most 30 of them, is compared exactly; any other by the value's integer part;
- where there is one target, a leaf gives the first weight that is listed for it, and one without any gives what stands
  for it in `nodes_values`; where there are more, all its weights count, and without any it gives 0.

It joins equality tests of one feature, each on the false side of another, when they seem to lead to the same: see
`_check_joined`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from models._arrays import Bools, Floats
from models.errors import UnsupportedModelError

TREE_OPERATORS = ("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor")
_ML_DOMAIN = "ai.onnx.ml"

LEQ, LT, GTE, GT, EQ, NEQ, MEMBER = range(7)
_LEAF_MODE = -1
_MODES = {
    name: mode
    for mode, name in enumerate(("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"))
} | {"LEAF": _LEAF_MODE}
_SUM, _AVERAGE = "SUM", "AVERAGE"
_AGGREGATES = {0: _AVERAGE, 1: _SUM, 2: "MIN", 3: "MAX"}
_EXACT_MEMBER_MAX, _EXACT_MEMBERS_MAX = 30, 30
_INT32_MAX = 2**31 - 1

DEPTH_MAX = 2_000
"""Splits on the way to a leaf. ONNX Runtime builds a tree by recursion: so many take between 1 and 2 MB of stack, of
the 8 MB that a thread has on Linux."""
TARGETS_MAX = 10_000
_VALUES_MAX = 2**27
"""Nodes times targets, as many numbers as are held of one operator: 1 GiB."""

Longs = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Members:
    """A set of values that a node tests, ascending. `by_integer_part`: of what stands before the point."""

    values: tuple[float, ...]
    by_integer_part: bool

    def holds(self, x: float) -> bool:
        """Whether a value that is not NaN belongs to the set, as ONNX Runtime has it."""
        if self.by_integer_part and np.isfinite(x):
            x = float(np.trunc(x))
        return x in self.values


@dataclass(frozen=True, slots=True)
class Nodes:
    """All nodes of all trees, leaves among them: node `i` goes left when `x <= threshold` (or `x` in `members[i]`), or,
    for NaN, when `missing_left`.

    roots       int64[trees]
    is_leaf     bool[n]; where it is set, the next five mean nothing
    feature, left, right int64[n]
    threshold   float64[n], missing_left bool[n]
    members     of the nodes that test a set
    value       float64[n, targets], what a leaf adds to each target
    base        float64[targets], what is added to each target once
    hitrate     float64[n] or None, rows that came by in training, as the operator has them
    leaf_order  int64[leaves], the leaves in the operator's own order
    """

    roots: Longs
    is_leaf: Bools
    feature: Longs
    threshold: Floats
    missing_left: Bools
    left: Longs
    right: Longs
    members: dict[int, Members]
    value: Floats
    base: Floats
    hitrate: Floats | None
    leaf_order: Longs


def tree_operators(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes of the graph that are tree ensembles."""
    return [node for node in graph.node if node.domain == _ML_DOMAIN and node.op_type in TREE_OPERATORS]


def check_nodes(operator: onnx.NodeProto, width: int) -> None:
    """Raises UnsupportedModelError unless the nodes are trees of features below `width` that can be explained."""
    check_shape(operator, width)
    read_nodes(operator)


def check_shape(operator: onnx.NodeProto, width: int | None) -> None:
    """What ONNX Runtime needs to build and walk the trees safely, whether or not they can be explained.

    Raises UnsupportedModelError for nodes that are no trees, deeper than DEPTH_MAX, of features not below `width`
    (None: it is not known), of targets that are not there or more than TARGETS_MAX, or with leaves that have no weight
    beside equality tests.
    """
    try:
        a = _attributes(operator)
        shape = _shape_of_version_5(a) if operator.op_type == "TreeEnsemble" else _shape_of_version_3(operator, a)
        _check_walk(shape)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise _misfit(operator, error) from error
    if np.any(shape.feature < 0):
        raise UnsupportedModelError("a node reads a feature with a negative number: export the model again")
    if width is not None and np.any(shape.feature >= width):
        raise UnsupportedModelError(f"a node reads a feature that is not among the {width} of the input: export again")


@dataclass(frozen=True, slots=True)
class _Shape:
    """How nodes hang together. roots int64[trees]; is_inner bool[n]; of the inner nodes, in their order, feature and
    true and false child, int64[inner]."""

    roots: Longs
    is_inner: Bools
    feature: Longs
    true: Longs
    false: Longs


def _shape_of_version_5(a: dict[str, Any]) -> _Shape:
    inner, leaves = len(a["nodes_splits"]), len(a["leaf_weights"])
    true, false = (_side(a, side, inner, leaves) for side in ("true", "false"))
    roots, feature = (np.asarray(a[name], np.int64) for name in ("tree_roots", "nodes_featureids"))
    _within(roots, inner)
    _within(np.asarray(a["leaf_targetids"], np.int64), _targets(a))
    _same_length(np.empty(inner), np.asarray(a["nodes_modes"]), feature, true, false)
    _same_length(np.empty(leaves), np.asarray(a["leaf_targetids"]))
    return _Shape(roots, np.arange(inner + leaves) < inner, feature, true, false)


def _shape_of_version_3(operator: onnx.NodeProto, a: dict[str, Any]) -> _Shape:
    kind = "class" if operator.op_type == "TreeEnsembleClassifier" else "target"
    trees, numbers, feature, true, false = (
        np.asarray(a[f"nodes_{name}"], np.int64)
        for name in ("treeids", "nodeids", "featureids", "truenodeids", "falsenodeids")
    )
    is_inner = np.array([mode != b"LEAF" for mode in a["nodes_modes"]], np.bool_)
    _same_length(trees, numbers, feature, true, false, is_inner)
    places = _Places(trees, numbers)
    leaf_trees, leaf_numbers, ids = (
        np.asarray(a[f"{kind}_{name}"], np.int64) for name in ("treeids", "nodeids", "ids")
    )
    _same_length(leaf_trees, leaf_numbers, ids)
    weighed = np.bincount(places.of(leaf_trees, leaf_numbers), minlength=trees.size) > 0
    if b"BRANCH_EQ" in a["nodes_modes"] and not np.all(weighed | is_inner):
        raise UnsupportedModelError(
            "a leaf has no weight in trees with BRANCH_EQ, where ONNX Runtime looks for it outside of its memory: "
            "give each leaf a weight, if only 0"
        )
    labels = a.get("classlabels_strings") or a.get("classlabels_int64s") or ()
    _within(ids, max(len(labels), 2) if kind == "class" else _targets(a))
    roots = np.flatnonzero(np.append(True, trees[1:] != trees[:-1])) if trees.size else trees
    sides = (places.of(trees[is_inner], side[is_inner]) for side in (true, false))
    return _Shape(roots, is_inner, feature[is_inner], *sides)


class _Places:
    """Where the node of a tree and a number within it stands."""

    def __init__(self, trees: Longs, numbers: Longs) -> None:
        """Raises UnsupportedModelError when two nodes have the same number."""
        self._trees, self._numbers = np.unique(trees), np.unique(numbers)
        keys = self._keys(trees, numbers)
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]
        if np.any(self._sorted[1:] == self._sorted[:-1]):
            raise UnsupportedModelError("two nodes of a tree have the same number: export the model again")

    def of(self, trees: Longs, numbers: Longs) -> Longs:
        """Raises UnsupportedModelError for a node that is not there."""
        places: Longs = self._order[_found(self._sorted, self._keys(trees, numbers))]
        return places

    def _keys(self, trees: Longs, numbers: Longs) -> Longs:
        return _found(self._trees, trees) * self._numbers.size + _found(self._numbers, numbers)


def _found(ascending: Longs, values: Longs) -> Longs:
    places: Longs = np.searchsorted(ascending, values)
    _within(places, ascending.size)
    if np.any(ascending[places] != values):
        raise UnsupportedModelError("a node points at a node, leaf or target that is not there: export it again")
    return places


def _check_walk(shape: _Shape) -> None:
    """Level by level from the roots, without recursion."""
    below = np.concatenate([shape.true, shape.false, shape.roots])
    below = below[shape.is_inner[below]]
    if np.unique(below).size != below.size:  # whoever has one parent, and a root none, is in no loop with a root
        raise UnsupportedModelError("the graph's nodes share children or form a loop: they must be trees")
    place = np.cumsum(shape.is_inner) - 1
    level, depth = shape.roots[shape.is_inner[shape.roots]], 0
    while level.size:
        depth += 1
        if depth > DEPTH_MAX:
            raise UnsupportedModelError(
                f"a tree has more than {DEPTH_MAX:,} splits on the way to a leaf, more than ONNX Runtime builds "
                "safely: train with a smaller depth (max_depth)"
            )
        below = np.concatenate([shape.true[place[level]], shape.false[place[level]]])
        level = below[shape.is_inner[below]]


def _targets(a: dict[str, Any]) -> int:
    """`n_targets`. Raises UnsupportedModelError above TARGETS_MAX."""
    targets = int(a.get("n_targets", 0))
    if targets > TARGETS_MAX:
        raise UnsupportedModelError(
            f"the trees have {targets:,} targets, more than {TARGETS_MAX:,}: export the one that is scored"
        )
    return targets


def _zeros(nodes: int, targets: int) -> Floats:
    """float64[nodes, targets]. Raises UnsupportedModelError when that is more than is held."""
    if nodes * targets > _VALUES_MAX:
        raise UnsupportedModelError(
            f"{nodes:,} nodes with {targets:,} targets each are too many values: export the target that is scored"
        )
    return np.zeros((nodes, targets))


def _same_length(*parts: Any) -> None:
    if len({len(part) for part in parts}) > 1:
        raise UnsupportedModelError("lists that describe the same nodes differ in length: export the model again")


def _misfit(operator: onnx.NodeProto, error: Exception) -> UnsupportedModelError:
    return UnsupportedModelError(f"the {operator.op_type} lacks a part or has one too many ({repr(error)[:200]})")


def read_nodes(operator: onnx.NodeProto) -> Nodes:
    """Raises UnsupportedModelError for anything that is no sum or mean of trees, and for parts that do not fit."""
    try:
        a = _attributes(operator)
        nodes = _of_version_5(a) if operator.op_type == "TreeEnsemble" else _of_version_3(operator.op_type, a)
        _check(nodes)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise _misfit(operator, error) from error
    return nodes


def _attributes(operator: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: _value(attribute) for attribute in operator.attribute}


def _value(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return value.decode() if isinstance(value, bytes) else value


def _of_version_5(a: dict[str, Any]) -> Nodes:
    """Inner nodes and leaves are numbered apart: leaf `l` becomes node `inner + l`."""
    modes = np.asarray(a["nodes_modes"], np.int64)
    inner, weights = modes.size, np.asarray(a["leaf_weights"], np.float64)
    leaves = weights.size
    sides = {side: _side(a, side, inner, leaves) for side in ("true", "false")}
    for root in np.asarray(a["tree_roots"], np.int64).tolist():
        if sides["true"][root] == sides["false"][root] != root + inner:
            raise UnsupportedModelError(
                "a tree of one leaf, which ONNX Runtime misreads (it takes the leaf at the root's number): "
                "export it as a split between two equal leaves"
            )
    targets = _targets(a)
    value = _zeros(inner + leaves, targets)
    value[inner + np.arange(leaves), np.asarray(a["leaf_targetids"], np.int64)] = weights
    is_leaf = np.arange(inner + leaves) >= inner
    all_modes = np.concatenate([modes, np.full(leaves, _LEAF_MODE)])
    nodes = _compared(
        all_modes,
        _padded(a["nodes_splits"], leaves, np.float64),
        _padded(_given(a, "nodes_missing_value_tracks_true", np.zeros(inner)), leaves, np.bool_),
        _padded(sides["true"], leaves, np.int64),
        _padded(sides["false"], leaves, np.int64),
        _member_sets(modes, np.asarray(a.get("membership_values", ()), np.float64)),
    )
    nodes = replace(
        nodes,
        roots=np.asarray(a["tree_roots"], np.int64),
        is_leaf=is_leaf,
        feature=_padded(a["nodes_featureids"], leaves, np.int64),
        value=value,
        base=np.zeros(targets),
        leaf_order=np.flatnonzero(is_leaf),
    )
    _check_joined(nodes, all_modes, np.concatenate([np.zeros(inner), weights]))
    return _aggregated(nodes, _AGGREGATES.get(int(a.get("aggregate_function", 1)), "?"))


def _side(a: dict[str, Any], side: str, inner: int, leaves: int) -> Longs:
    """Of each inner node the child on the side "true" or "false", leaves numbered behind the inner nodes."""
    ids, leaf = (np.asarray(a[f"nodes_{side}{kind}"], np.int64) for kind in ("nodeids", "leafs"))
    _within(ids, np.where(leaf != 0, leaves, inner))
    children: Longs = ids + inner * (leaf != 0)
    return children


def _of_version_3(op_type: str, a: dict[str, Any]) -> Nodes:
    """Nodes are named by (tree, number within the tree); weights name their leaf and target the same way."""
    kind = "class" if op_type == "TreeEnsembleClassifier" else "target"
    modes = np.array([_MODES[m.decode() if isinstance(m, bytes) else m] for m in a["nodes_modes"]], np.int64)
    names = list(zip(a["nodes_treeids"], a["nodes_nodeids"], strict=True))
    number = {name: i for i, name in enumerate(names)}
    if len(number) != len(names):
        raise UnsupportedModelError("two nodes of a tree have the same number: export the model again")
    inner = modes != _LEAF_MODE
    splits = np.asarray(_either(a, "nodes_values"), np.float64)
    true, false = (_children(names, number, a[key], inner) for key in ("nodes_truenodeids", "nodes_falsenodeids"))
    nodes = _compared(
        modes,
        splits,
        np.asarray(_given(a, "nodes_missing_value_tracks_true", np.zeros(modes.size)), np.bool_),
        true,
        false,
        {},
    )
    trees = np.array([tree for tree, _ in names])
    hitrate = _either(a, "nodes_hitrates")
    named = zip(a[f"{kind}_treeids"], a[f"{kind}_nodeids"], strict=True)
    places = np.array([number[name] for name in named], np.int64)
    value, base, first = _weights(kind, a, places, np.where(inner, 0.0, splits))
    if kind == "class" and value.shape[1] == 2:
        _check_second_class(trees, ~inner, places[np.asarray(a["class_ids"]) == 1])
    nodes = replace(
        nodes,
        roots=np.flatnonzero(np.append(True, trees[1:] != trees[:-1])),  # the first node of a tree is its root
        is_leaf=~inner,
        feature=np.where(inner, np.asarray(a["nodes_featureids"], np.int64), 0),
        value=value,
        base=base,
        hitrate=np.asarray(hitrate, np.float64) if hitrate is not None and len(hitrate) == modes.size else None,
        leaf_order=np.flatnonzero(~inner),
    )
    _check_joined(nodes, modes, first)
    return _aggregated(nodes, a.get("aggregate_function", _SUM))


def _children(names: list[tuple[int, int]], number: dict[tuple[int, int], int], children: Any, inner: Bools) -> Longs:
    """The positions of the children of each node, 0 at a leaf, from their numbers within the trees."""
    named = zip(names, children, inner, strict=True)
    return np.array([number[tree, child] if split else 0 for (tree, _), child, split in named], np.int64)


def _weights(kind: str, a: dict[str, Any], leaves: Longs, unweighed: Floats) -> tuple[Floats, Floats, Floats]:
    """What each leaf adds to each target, the base values, and the first weight of each leaf (`unweighed` where there
    is none). A classifier of two classes whose weights all name one class has one target: the score of the positive
    class, of which the other is the complement."""
    ids = np.asarray(a[f"{kind}_ids"], np.int64)
    weights = np.asarray(_either(a, f"{kind}_weights"), np.float64)
    given = _either(a, "base_values")
    base = np.asarray(() if given is None else given, np.float64)
    labels = a.get("classlabels_strings") or a.get("classlabels_int64s") or ()
    targets = len(labels) if kind == "class" else _targets(a)
    weighed, listed = np.unique(leaves, return_index=True)
    first = unweighed.copy()
    first[weighed] = weights[listed]
    takes_first = targets == 1
    if kind == "class" and targets <= 2 and np.unique(ids).size == 1:
        ids, targets, base = np.zeros_like(ids), 1, base[-1:]
    _within(ids, targets)
    if kind == "class" and targets == 2 and base.size:
        raise UnsupportedModelError("base values of two classes that both have weights: ONNX Runtime mixes them up")
    value = _zeros(unweighed.size, targets)
    if takes_first:
        value[:, 0] = first
    else:
        np.add.at(value, (leaves, ids), weights)
    if base.size not in (0, targets):
        raise UnsupportedModelError(f"{base.size} base values for {targets} targets: export the model again")
    return value, base if base.size else np.zeros(targets), first


def _check_second_class(trees: Longs, is_leaf: Bools, weighed: Longs) -> None:
    """Raises UnsupportedModelError when a row may come by no weight of the second of two classes.

    `weighed` are the leaves that have one. It is enough when one of the trees has it at each of its leaves.
    """
    without = is_leaf.copy()
    without[weighed] = False
    if np.unique(trees[without]).size == np.unique(trees).size:
        raise UnsupportedModelError(
            "leaves have no weight of the second of two classes: ONNX Runtime gives rows that come by these alone "
            "another sign; give each leaf a weight of it, if only 0"
        )


def _compared(
    modes: Longs, splits: Floats, tracks: Bools, true: Longs, false: Longs, sets: dict[int, Members]
) -> Nodes:
    """Every comparison rewritten as `x <= threshold` or `x` in a set; what else there is in Nodes is filled in later.

    `x < t` is `x <= the number before t`; `>=`, `>` and `!=` are the negations of `<`, `<=` and `==`, so sides swap.
    No number is before −∞: `x < −∞` is never true, which is the negation of `x <= ∞`.
    """
    if np.any((modes > MEMBER) | (modes < _LEAF_MODE)):
        raise UnsupportedModelError("a node has a mode that is not in the operator's list: export the model again")
    strict = (modes == LT) | (modes == GTE)
    never = strict & (splits == -np.inf)
    threshold = np.where(never, np.inf, np.where(strict, np.nextafter(splits, -np.inf), splits))
    if np.any(np.isnan(threshold) & (modes != _LEAF_MODE)):
        raise UnsupportedModelError("a threshold is NaN: no comparison with it is ever true; export the model again")
    equal = {int(i): Members((float(splits[i]),), False) for i in np.flatnonzero((modes == EQ) | (modes == NEQ))}
    swap = (modes == GTE) | (modes == GT) | (modes == NEQ)
    swap ^= never
    none = np.empty(0, np.int64)
    return Nodes(
        none,
        np.empty(0, np.bool_),
        none,
        threshold,
        np.where(modes == NEQ, False, np.where(swap, ~tracks, tracks)),
        np.where(swap, false, true),
        np.where(swap, true, false),
        equal | sets,
        np.empty((0, 0)),
        np.empty(0),
        None,
        none,
    )


def _member_sets(modes: Longs, values: Floats) -> dict[int, Members]:
    """`membership_values` has the sets one after the other, NaN behind each."""
    ends = np.flatnonzero(np.isnan(values)).tolist()
    starts = [0, *[end + 1 for end in ends]]
    if values.size and (not ends or ends[-1] != values.size - 1):
        ends.append(values.size)
    nodes = np.flatnonzero(modes == MEMBER).tolist()
    if len(nodes) > len(ends):
        raise UnsupportedModelError("a node tests a set that is not there: export the model again")
    return {node: _members(values[begin:end]) for node, begin, end in zip(nodes, starts, ends, strict=False)}


def _members(values: Floats) -> Members:
    exact = values.size <= _EXACT_MEMBERS_MAX and bool(np.all((values >= 0) & (values <= _EXACT_MEMBER_MAX)))
    if not values.size or (not exact and not np.all((np.trunc(values) == values) & (np.abs(values) <= _INT32_MAX))):
        raise UnsupportedModelError("a node tests a set that ONNX Runtime cannot: use 32-bit integers as categories")
    return Members(tuple(np.unique(values).tolist()), not exact)


def _aggregated(nodes: Nodes, aggregate: str) -> Nodes:
    if aggregate == _AVERAGE:
        return replace(nodes, value=nodes.value / nodes.roots.size)
    if aggregate != _SUM:
        raise UnsupportedModelError(f"the trees' {aggregate} is no sum of trees: only sums and means are explained")
    return nodes


def _check_joined(nodes: Nodes, modes: Longs, first: Floats) -> None:
    """Raises UnsupportedModelError where ONNX Runtime makes one test of two that differ.

    It makes one set of equality tests (and small sets) of one feature, each on the false side of the one before, when
    their true sides look the same to it. It looks at the first weight of a leaf alone, `first`, and at none of where
    missing values go.
    """
    joins = (modes == EQ) | (modes == MEMBER)
    for node in np.flatnonzero(joins).tolist():
        below = int(nodes.right[node])
        if not (joins[below] and nodes.feature[below] == nodes.feature[node]):
            continue
        looks_same, is_same = _compare(nodes, modes, first, int(nodes.left[node]), int(nodes.left[below]))
        is_same &= bool(nodes.missing_left[node] or not nodes.missing_left[below])
        if looks_same and not is_same:
            raise UnsupportedModelError(
                "ONNX Runtime makes one test of two equality tests of a feature, one below the other, that differ in "
                "where missing values go or in another target: export them as one set, or with equal missing values"
            )


def _compare(nodes: Nodes, modes: Longs, first: Floats, one: int, other: int) -> tuple[bool, bool]:
    """Whether the trees below two nodes look the same to ONNX Runtime, and whether they are."""
    waiting, is_same = [(one, other)], True
    for _ in range(modes.size):
        if not waiting:
            return True, is_same
        a, b = waiting.pop()
        if modes[a] != modes[b] or (nodes.is_leaf[a] and first[a] != first[b]):
            return False, False
        if nodes.is_leaf[a]:
            is_same &= bool(np.all(nodes.value[a] == nodes.value[b]))
            continue
        if (nodes.feature[a], nodes.threshold[a]) != (nodes.feature[b], nodes.threshold[b]):
            return False, False
        if nodes.members.get(a) != nodes.members.get(b):
            return False, False
        is_same &= bool(nodes.missing_left[a] == nodes.missing_left[b])
        waiting += ((int(nodes.left[a]), int(nodes.left[b])), (int(nodes.right[a]), int(nodes.right[b])))
    raise UnsupportedModelError("the graph's nodes share children or form a loop: they must be trees")


def _check(nodes: Nodes) -> None:
    count = nodes.is_leaf.size
    _within(nodes.roots, count)
    _within(nodes.left[~nodes.is_leaf], count)
    _within(nodes.right[~nodes.is_leaf], count)
    if not nodes.roots.size or nodes.value.shape[1] < 1:
        raise UnsupportedModelError("the operator has no tree or no target: export the model again")
    if not np.all(np.isfinite(nodes.value)):
        raise UnsupportedModelError("a leaf's value is not a finite number: such a model cannot be explained")


def _within(positions: Longs, end: int | Longs) -> None:
    if not np.all((positions >= 0) & (positions < end)):
        raise UnsupportedModelError("a node points at a node, leaf or target that is not there: export it again")


def _either(a: dict[str, Any], name: str) -> Any:
    """A list of floats or, for double precision, a tensor."""
    return a.get(name) if a.get(name) is not None and len(a[name]) else a.get(f"{name}_as_tensor")


def _given(a: dict[str, Any], name: str, default: Any) -> Any:
    return a[name] if name in a and len(a[name]) else default


def _padded(values: Any, leaves: int, dtype: Any) -> Any:
    """Values of the inner nodes, with zeros for the leaves behind them."""
    return np.concatenate([np.asarray(values, dtype), np.zeros(leaves, dtype)])
