"""Cuts each tree into groups of leaves that share one table of shares.

                  n0            above the groups: n0
               ┌───┴───┐
               n1      n2       two groups, one under n1 and one under n2: a pattern of the first is the outcome of
             ┌─┴─┐   ┌─┴─┐      the tests n0, n1, n3, and its table has a row for each of the 2^3 outcomes
             n3  l   l   l
            ┌┴┐
            l l

A table's row is the sum over the group's leaves, so that one look-up serves them all. More leaves in a group make fewer
look-ups, and tables that double with each test. The cut of a tree minimises look-ups plus bytes at a price.

A leaf whose path tests few features many times is better off alone, with one condition (a span) for each feature.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from models.trees import LEAF, Tree

TESTS_MAX = 12
"""Tests of one group; more do not pay."""
_BYTES_PER_LOOKUP = 16 * 1024
"""This many bytes of table weigh as much as one look-up: full trees of 64 leaves fall into groups of four."""
_UPPER_COST, _SPAN_COST = 0.2, 0.5
_WITHOUT_TABLE = 1e6


@dataclass(frozen=True, slots=True)
class Group:
    """The leaves below the node `root` of a tree. `by_span`: one leaf, one condition for each feature."""

    root: int
    by_span: bool
    tests: int
    features: tuple[int, ...]

    @property
    def stride(self) -> int:
        """Distance of two patterns in the table: a power of two, so that a row of up to 8 shares is one cache line."""
        return 1 << max(len(self.features) - 1, 0).bit_length()

    @property
    def table_size(self) -> int:
        """Numbers in the table."""
        return self.stride << self.tests


@dataclass(slots=True)
class Shape:
    """What the cut needs to know of a tree, by node; features as bits of an integer.

    order       nodes, parents first
    parent      -1 at the root
    depth       tests on the path
    above       features tested on the path
    below, inner  features tested and inner nodes, at and below the node
    sets_above  whether a test on the path is of a set
    """

    order: list[int]
    parent: list[int]
    depth: list[int]
    above: list[int]
    below: list[int]
    inner: list[int]
    sets_above: list[bool]

    @classmethod
    def of(cls, tree: Tree) -> Shape:
        n = tree.feature.size
        feature, left, right = tree.feature.tolist(), tree.left.tolist(), tree.right.tolist()
        shape = cls([], [-1] * n, [0] * n, [0] * n, [0] * n, [0] * n, [False] * n)
        waiting = [0]
        while waiting:
            node = waiting.pop()
            shape.order.append(node)
            if feature[node] == LEAF:
                continue
            for child in (right[node], left[node]):
                shape.parent[child] = node
                shape.depth[child] = shape.depth[node] + 1
                shape.above[child] = shape.above[node] | (1 << feature[node])
                shape.sets_above[child] = shape.sets_above[node] or node in tree.members
                waiting.append(child)
        for node in reversed(shape.order):
            if feature[node] != LEAF:
                children = left[node], right[node]
                shape.below[node] = (1 << feature[node]) | shape.below[children[0]] | shape.below[children[1]]
                shape.inner[node] = 1 + shape.inner[children[0]] + shape.inner[children[1]]
        return shape

    def path(self, node: int) -> list[int]:
        """The nodes above, from the root on."""
        found = []
        while (node := self.parent[node]) >= 0:
            found.append(node)
        return found[::-1]


@dataclass(slots=True)
class Cut:
    """Groups of a tree, and the leaves that no group has room for."""

    groups: list[Group] = field(default_factory=list)
    without_table: list[int] = field(default_factory=list)


def cut(tree: Tree, shape: Shape) -> Cut:
    """The cheapest cut of a tree. A tree of one leaf has no group."""
    left, right, is_leaf = tree.left.tolist(), tree.right.tolist(), (tree.feature == LEAF).tolist()
    best: list[tuple[float, Group | None]] = [(0.0, None)] * tree.feature.size
    for node in reversed(shape.order):
        below = None if is_leaf[node] else best[left[node]][0] + best[right[node]][0]
        best[node] = _cheapest(shape, node, below)
    found, waiting = Cut(), [] if is_leaf[0] else [0]
    while waiting:
        node = waiting.pop()
        group = best[node][1]
        if group is not None:
            found.groups.append(group)
        elif is_leaf[node]:
            found.without_table.append(node)
        else:
            waiting += (right[node], left[node])
    return found


def _cheapest(shape: Shape, node: int, below: float | None) -> tuple[float, Group | None]:
    """The least cost of all leaves below a node, and the group that they make there, if that is the cheapest.

    `below` is what they cost in groups of the node's children; None at a leaf.
    """
    choices: list[tuple[float, Group | None]] = []
    tests = shape.depth[node] + shape.inner[node]
    if tests <= TESTS_MAX:
        choices.append(_priced(Group(node, False, tests, _features(shape.above[node] | shape.below[node]))))
    if below is not None:
        choices.append((_UPPER_COST + below, None))
    else:
        features = _features(shape.above[node])
        if len(features) < shape.depth[node] and len(features) <= TESTS_MAX and not shape.sets_above[node]:
            choices.append(_priced(Group(node, True, len(features), features)))
        choices.append((_WITHOUT_TABLE, None))
    return min(choices, key=lambda choice: choice[0])


def _priced(group: Group) -> tuple[float, Group]:
    spans = _SPAN_COST * group.tests if group.by_span else 0.0
    return 1.0 + spans + group.table_size * 8 / _BYTES_PER_LOOKUP, group


def _features(bits: int) -> tuple[int, ...]:
    return tuple(i for i in range(bits.bit_length()) if bits >> i & 1)
