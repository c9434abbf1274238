"""An ensemble with its tables of shares, as the two arrays that the compiled loops read.

For one leaf, let a *condition* be all tests of one feature on its path. A leaf with d conditions sees at most 2^d
patterns of satisfied conditions, and what the explanation gives each feature depends on nothing else. So the shares of
every pattern are computed once, averaged over the background or weighted by covers; a row then costs comparisons and
look-ups, whatever the size of the background. `_groups` says how leaves come together in one table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models._arrays import Bools, Floats, Ints
from models.explain import _layout as at
from models.explain._groups import Group, Shape, cut
from models.trees import LEAF, Ensemble, Tree

_NUMBER_BYTES = 8


@dataclass(frozen=True, slots=True)
class Game:
    """A leaf of a group as conditions on the group's pattern. Condition `c` holds when `pattern & mask == want`.

    columns  where in the table's rows the shares of each condition's feature stand
    ratios   share of the training rows that meet each condition, or 1 without covers
    """

    value: float
    columns: tuple[int, ...]
    masks: tuple[int, ...]
    wants: tuple[int, ...]
    ratios: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Compiled:
    """`ints` and `floats` as `_layout` has them, all shares still 0, with what is needed to fill them.

    games      the leaves of all groups, in the order of groups
    game_start int64[GROUPS + 1]
    table_at, stride, tests  int64[GROUPS]: where a group's table begins in floats, distance of patterns, their bits
    """

    ints: Ints
    floats: Floats
    games: list[Game]
    game_start: NDArray[np.int64]
    table_at: NDArray[np.int64]
    stride: NDArray[np.int64]
    tests: NDArray[np.int64]


@dataclass(slots=True)
class _Slots:
    """Numbers the slots: which integer of a row answers which test."""

    thresholds: list[Floats]
    sets: dict[tuple[int, bool, bool, tuple[float, ...]], int] = field(default_factory=dict)
    spans: dict[tuple[int, int, int, bool], int] = field(default_factory=dict)
    tests: list[tuple[list[int], list[int]]] = field(default_factory=list)

    @classmethod
    def of(cls, ensemble: Ensemble) -> _Slots:
        """Thresholds of each feature, and slot and rank of every node of every tree."""
        plain = [_plain_splits(tree) for tree in ensemble.trees]
        feature = np.concatenate([tree.feature[p] for tree, p in zip(ensemble.trees, plain, strict=True)])
        threshold = np.concatenate([tree.threshold[p] for tree, p in zip(ensemble.trees, plain, strict=True)])
        slots = cls([np.unique(threshold[feature == f]) for f in range(ensemble.feature_count)])
        for tree in ensemble.trees:
            slots._add(tree)
        return slots

    def _add(self, tree: Tree) -> None:
        slot, rank = np.zeros(tree.feature.size, np.int64), np.zeros(tree.feature.size, np.int64)
        for f in np.unique(tree.feature[tree.feature != LEAF]).tolist():
            here = tree.feature == f
            slot[here] = 2 * f + tree.missing_left[here]
            rank[here] = np.searchsorted(self.thresholds[f], tree.threshold[here])
        for node, members in tree.members.items():
            key = (int(tree.feature[node]), bool(tree.missing_left[node]), members.by_integer_part, members.values)
            slot[node], rank[node] = 2 * len(self.thresholds) + self.sets.setdefault(key, len(self.sets)), 0
        self.tests.append((slot.tolist(), rank.tolist()))

    def span(self, feature: int, above: int, up_to: int, missing: bool) -> int:
        """The slot of the test whether a value's rank lies in (above, up_to]. Only after all trees were added."""
        number = self.spans.setdefault((feature, above, up_to, missing), len(self.spans))
        return 2 * len(self.thresholds) + len(self.sets) + number

    @property
    def count(self) -> int:
        return 2 * len(self.thresholds) + len(self.sets) + len(self.spans)


@dataclass(slots=True)
class _Member:
    """A group on its way into a bucket."""

    tree: int
    group: Group
    parent: int
    own: list[tuple[int, int]]
    games: list[Game]


class _Arrays:
    """Collects the sections of one array, and says where each began."""

    def __init__(self, dtype: type[np.int32] | type[np.float64], size: int) -> None:
        self._dtype, self.size = dtype, size
        self._parts: list[NDArray[Any]] = [np.zeros(size, dtype)]

    def add(self, values: object) -> int:
        part = np.asarray(values, self._dtype).reshape(-1)
        self._parts.append(part)
        self.size += part.size
        return self.size - part.size

    def joined(self) -> NDArray[Any]:
        return np.concatenate(self._parts)


def compile_ensemble(ensemble: Ensemble, *, path_dependent: bool, table_bytes_max: int) -> Compiled:
    """The ensemble's arrays, without shares. Leaves beyond `table_bytes_max` are left to the loops without tables."""
    shapes = [Shape.of(tree) for tree in ensemble.trees]
    cuts = [cut(tree, shape) for tree, shape in zip(ensemble.trees, shapes, strict=True)]
    slots = _Slots.of(ensemble) if ensemble.trees else _Slots([np.empty(0)] * ensemble.feature_count)
    chosen = _within_budget([(t, g) for t, c in enumerate(cuts) for g in c.groups], table_bytes_max)
    rest = {(t, leaf) for t, c in enumerate(cuts) for leaf in c.without_table}
    for t, group in {(t, g) for t, c in enumerate(cuts) for g in c.groups} - set(chosen):
        rest.update((t, leaf) for leaf in _leaves_below(ensemble.trees[t], group.root))
    upper, number = _upper(shapes, chosen, slots)
    members = [_member(ensemble.trees[t], t, shapes[t], g, number, slots) for t, g in chosen]
    return _assemble(ensemble, shapes, slots, upper, members, rest, path_dependent)


def _plain_splits(tree: Tree) -> Bools:
    plain = np.asarray(tree.feature != LEAF, np.bool_)
    plain[list(tree.members)] = False
    return plain


def _within_budget(groups: list[tuple[int, Group]], bytes_max: int) -> list[tuple[int, Group]]:
    """The groups with the smallest tables that fit together, in their order."""
    order = sorted(range(len(groups)), key=lambda i: groups[i][1].table_size)
    used = np.cumsum([groups[i][1].table_size * _NUMBER_BYTES for i in order])
    kept = set(order[: int(np.count_nonzero(used <= bytes_max))])
    return [group for i, group in enumerate(groups) if i in kept]


def _leaves_below(tree: Tree, root: int) -> list[int]:
    found, waiting = [], [root]
    while waiting:
        node = waiting.pop()
        if tree.feature[node] == LEAF:
            found.append(node)
        else:
            waiting += (int(tree.right[node]), int(tree.left[node]))
    return found


def _upper(
    shapes: list[Shape], groups: list[tuple[int, Group]], slots: _Slots
) -> tuple[NDArray[np.int64], dict[tuple[int, int], int]]:
    """int64[3, UPPER]: parent, slot, rank of the nodes above groups, parents first; and 1 + the place of (tree, node).

    Parents are numbered so too; 0 stands above the roots.
    """
    needed = {(t, node) for t, group in groups if not group.by_span for node in shapes[t].path(group.root)}
    number: dict[tuple[int, int], int] = {}
    rows = []
    for t, shape in enumerate(shapes):
        for node in shape.order:
            if (t, node) in needed:
                rows.append((number.get((t, shape.parent[node]), 0), slots.tests[t][0][node], slots.tests[t][1][node]))
                number[t, node] = len(rows)
    return np.array(rows, np.int64).reshape(-1, 3).T, number


def _member(
    tree: Tree, t: int, shape: Shape, group: Group, number: dict[tuple[int, int], int], slots: _Slots
) -> _Member:
    if group.by_span:
        return _by_span(tree, t, shape, group, slots)
    path = shape.path(group.root)
    own = [node for node in _preorder(tree, group.root) if tree.feature[node] != LEAF]
    bit = {node: group.tests - 1 - i for i, node in enumerate([*path, *own])}
    slot, rank = slots.tests[t]
    games = [_game(tree, shape, leaf, group, bit) for leaf in _leaves_below(tree, group.root)]
    parent = number[t, path[-1]] if path else 0
    return _Member(t, group, parent, [(slot[node], rank[node]) for node in own], games)


def _preorder(tree: Tree, root: int) -> list[int]:
    found, waiting = [], [root]
    while waiting:
        node = waiting.pop()
        found.append(node)
        if tree.feature[node] != LEAF:
            waiting += (int(tree.right[node]), int(tree.left[node]))
    return found


def _conditions(tree: Tree, shape: Shape, leaf: int) -> dict[int, list[tuple[int, bool]]]:
    """By feature: the nodes on the leaf's path that test it, and whether the path goes left there."""
    path = [*shape.path(leaf), leaf]
    found: dict[int, list[tuple[int, bool]]] = {}
    for node, child in pairwise(path):
        found.setdefault(int(tree.feature[node]), []).append((node, bool(tree.left[node] == child)))
    return found


def _ratio(tree: Tree, tests: list[tuple[int, bool]]) -> float:
    """The share of training rows that pass these tests, as the path-dependent explanation has it."""
    if tree.cover is None:
        return 1.0
    ratio = 1.0
    for node, goes_left in tests:
        child = tree.left[node] if goes_left else tree.right[node]
        ratio *= float(tree.cover[child] / tree.cover[node])
    return ratio


def _game(tree: Tree, shape: Shape, leaf: int, group: Group, bit: dict[int, int]) -> Game:
    conditions = _conditions(tree, shape, leaf)
    return Game(
        float(tree.value[leaf]),
        tuple(group.features.index(f) for f in conditions),
        tuple(sum(1 << bit[node] for node, _ in tests) for tests in conditions.values()),
        tuple(sum(1 << bit[node] for node, goes_left in tests if goes_left) for tests in conditions.values()),
        tuple(_ratio(tree, tests) for tests in conditions.values()),
    )


def _by_span(tree: Tree, t: int, shape: Shape, group: Group, slots: _Slots) -> _Member:
    conditions = _conditions(tree, shape, group.root)
    rank = slots.tests[t][1]
    own, columns, bits, ratios = [], [], [], []
    for i, (feature, tests) in enumerate(conditions.items()):
        above = max((rank[node] for node, goes_left in tests if not goes_left), default=-1)
        up_to = min((rank[node] for node, goes_left in tests if goes_left), default=at.RIGHT_OF_ALL - 1)
        missing = all(bool(tree.missing_left[node]) == goes_left for node, goes_left in tests)
        own.append((slots.span(feature, above, up_to, missing), 0))
        columns.append(group.features.index(feature))
        bits.append(1 << (group.tests - 1 - i))
        ratios.append(_ratio(tree, tests))
    game = Game(float(tree.value[group.root]), tuple(columns), tuple(bits), tuple(bits), tuple(ratios))
    return _Member(t, group, 0, own, [game])


def _assemble(
    ensemble: Ensemble,
    shapes: list[Shape],
    slots: _Slots,
    upper: NDArray[np.int64],
    members: list[_Member],
    rest: set[tuple[int, int]],
    path_dependent: bool,
) -> Compiled:
    ints, floats, header = _Arrays(np.int32, at.COUNTS), _Arrays(np.float64, 0), np.zeros(at.COUNTS, np.int32)
    header[at.FEATURES], header[at.SINGLE], header[at.SLOTS] = (
        ensemble.feature_count,
        ensemble.single_precision,
        slots.count,
    )
    _add_slots(slots, ints, floats, header)
    header[at.UPPER], header[at.UPPER_AT] = upper.shape[1], ints.add(upper)
    members = sorted(members, key=lambda m: (len(m.own), len(m.group.features)))
    _add_forests(ensemble, shapes, slots, set() if path_dependent else rest, ints, floats, header)
    _add_leaves(ensemble, shapes, slots, rest if path_dependent else set(), ints, floats, header)
    floats.add(np.zeros(-floats.size % 8))  # tables begin with a cache line
    table_at = floats.size + np.cumsum([0, *[m.group.table_size for m in members]])
    _add_buckets(members, table_at, ints, header)
    floats.add(np.zeros(table_at[-1] - table_at[0]))
    joined = ints.joined().astype(np.int32)
    joined[: at.COUNTS] = header
    return Compiled(
        joined,
        floats.joined().astype(np.float64),
        [game for m in members for game in m.games],
        np.cumsum([0, *[len(m.games) for m in members]]),
        table_at[:-1],
        np.array([m.group.stride for m in members], np.int64),
        np.array([m.group.tests for m in members], np.int64),
    )


def _add_slots(slots: _Slots, ints: _Arrays, floats: _Arrays, header: Ints) -> None:
    ends = np.cumsum([0, *[t.size for t in slots.thresholds]]) + floats.size
    floats.add(np.concatenate([np.empty(0), *slots.thresholds]))
    header[at.THRESHOLDS] = ints.add(ends)
    sets = []
    for feature, missing_left, by_integer_part, values in slots.sets:
        flags = at.MISSING_LEFT * missing_left | at.BY_INTEGER_PART * by_integer_part
        sets.append((feature, flags, floats.add(values), len(values)))
    header[at.SETS], header[at.SETS_AT] = len(sets), ints.add(sets)
    header[at.SPANS], header[at.SPANS_AT] = len(slots.spans), ints.add(list(slots.spans))


def _add_buckets(members: list[_Member], table_at: NDArray[np.int64], ints: _Arrays, header: Ints) -> None:
    buckets, first = [], 0
    for (own, features), same in groupby(members, key=lambda m: (len(m.own), len(m.group.features))):
        bucket = list(same)
        row = np.zeros(at.BUCKET_WIDTH, np.int64)
        row[at.BUCKET_OWN], row[at.BUCKET_FEATURES] = own, features
        row[at.BUCKET_COUNT], row[at.BUCKET_FIRST] = len(bucket), first
        row[at.BUCKET_STRIDE] = bucket[0].group.stride
        row[at.BUCKET_PARENT_AT] = ints.add([m.parent for m in bucket])
        tests = np.array([m.own for m in bucket], np.int64).reshape(len(bucket), own, 2)
        row[at.BUCKET_SLOT_AT], row[at.BUCKET_RANK_AT] = ints.add(tests[:, :, 0].T), ints.add(tests[:, :, 1].T)
        row[at.BUCKET_TABLE_AT] = ints.add(table_at[first : first + len(bucket)])
        row[at.BUCKET_FEATURE_AT] = ints.add([m.group.features for m in bucket])
        buckets.append(row)
        first += len(bucket)
    header[at.BUCKETS], header[at.BUCKETS_AT], header[at.GROUPS] = len(buckets), ints.add(buckets), first


def _add_forests(
    ensemble: Ensemble,
    shapes: list[Shape],
    slots: _Slots,
    rest: set[tuple[int, int]],
    ints: _Arrays,
    floats: _Arrays,
    header: Ints,
) -> None:
    """All nodes; which of them belong to the whole forest, and which to that of the leaves in `rest`."""
    trees = ensemble.trees
    roots = np.cumsum([0, *[tree.feature.size for tree in trees]])
    joined = (
        [
            np.concatenate([np.empty(0, np.int64), *part])
            for part in zip(
                *[
                    (
                        np.array(slots.tests[t][0]),
                        np.array(slots.tests[t][1]),
                        tree.left + roots[t],
                        tree.right + roots[t],
                    )
                    for t, tree in enumerate(trees)
                ],
                strict=True,
            )
        ]
        if trees
        else []
    )
    header[at.NODES], header[at.NODES_AT] = roots[-1], ints.add(joined)
    header[at.PATH_MAX] = max((mask.bit_count() for shape in shapes for mask in shape.above), default=0)
    feature = np.concatenate([np.empty(0, np.int64), *[tree.feature for tree in trees]])
    value = np.concatenate([np.empty(0), *[tree.value for tree in trees]])
    kept, kept_value = np.full(feature.size, LEAF), np.zeros(feature.size)
    for t, leaf in rest:
        kept_value[roots[t] + leaf] = value[roots[t] + leaf]
        for node in shapes[t].path(leaf):
            kept[roots[t] + node] = feature[roots[t] + node]
    some = sorted({t for t, _ in rest})
    for forest, root, features, values in (
        (at.WHOLE, roots[:-1], feature, value),
        (at.REST, roots[some], kept, kept_value),
    ):
        header[forest + at.FOREST_TREES], header[forest + at.FOREST_ROOTS_AT] = len(root), ints.add(root)
        header[forest + at.FOREST_FEATURE_AT] = ints.add(features)
        header[forest + at.FOREST_VALUES_AT] = floats.add(values)


def _add_leaves(
    ensemble: Ensemble,
    shapes: list[Shape],
    slots: _Slots,
    rest: set[tuple[int, int]],
    ints: _Arrays,
    floats: _Arrays,
    header: Ints,
) -> None:
    """The leaves in `rest` one by one, as conditions made of tests."""
    starts, features, first_tests, ratios, tests = [0], [], [0], [], []
    order = sorted(rest)
    for t, leaf in order:
        slot, rank = slots.tests[t]
        for feature, nodes in _conditions(ensemble.trees[t], shapes[t], leaf).items():
            tests += [(slot[node], rank[node], goes_left) for node, goes_left in nodes]
            features.append(feature)
            first_tests.append(len(tests))
            ratios.append(_ratio(ensemble.trees[t], nodes))
        starts.append(len(features))
    header[at.LEAVES], header[at.LEAVES_AT] = len(order), ints.add(starts)
    header[at.LEAF_VALUES_AT] = floats.add([ensemble.trees[t].value[leaf] for t, leaf in order])
    header[at.CONDITIONS], header[at.CONDITIONS_AT] = len(features), ints.add([[*features, 0], first_tests])
    header[at.RATIOS_AT] = floats.add(ratios)
    header[at.TESTS], header[at.TESTS_AT] = len(tests), ints.add(np.array(tests, np.int64).reshape(-1, 3).T)
