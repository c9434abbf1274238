"""The loops without tables, for leaves that have none and for probabilities: exact, in polynomial time, for any depth.

Interventional, one game for each row and background row: both walk down a tree together. Where a test tells them apart
for the first time on its feature, the path splits: on one side the feature is the row's, on the other the background
row's. At a leaf, `a` features were taken from the row and `b` from the background row, which is all that its shares
depend on (see `_fill`). A game visits only nodes that some mixture of the two rows reaches.
"""

from __future__ import annotations

import numpy as np

from models._arrays import Floats, Ints
from models._compiled import compiled
from models.explain import _layout as at
from models.explain._fill import Longs, play_path_dependent
from models.explain._kernels import read_slots

_ANYONES, _OURS, _THEIRS = 0, 1, 2


@compiled
def slots_of(ints: Ints, floats: Floats, rows: Floats) -> Ints:
    """The slots of each row, int32[N, SLOTS]."""
    found = np.empty((rows.shape[0], ints[at.SLOTS]), np.int32)
    for n in range(rows.shape[0]):
        read_slots(ints, floats, rows[n], found[n])
    return found


@compiled
def margins(ints: Ints, floats: Floats, slots: Ints) -> Floats:
    """The sum of the leaves that each row reaches, float64[N], from slots int32[N, SLOTS]."""
    found = np.zeros(slots.shape[0])
    nodes = ints[at.NODES]
    feature = ints[ints[at.WHOLE_FEATURE_AT] : ints[at.WHOLE_FEATURE_AT] + nodes]
    links = ints[ints[at.NODES_AT] : ints[at.NODES_AT] + 4 * nodes].reshape(4, nodes)
    for tree in range(ints[at.WHOLE]):
        root = ints[ints[at.WHOLE_ROOTS_AT] + tree]
        for n in range(slots.shape[0]):
            node = root
            while feature[node] >= 0:
                node = links[2, node] if slots[n, links[0, node]] <= links[1, node] else links[3, node]
            found[n] += floats[ints[at.WHOLE_VALUES_AT] + node]
    return found


@compiled
def play_forest(
    ints: Ints, floats: Floats, forest: int, ours: Ints, theirs: Ints, scale: Floats, weight: Floats, out: Floats
) -> None:
    """Adds to `out` float64[F] the shares of one row, as the sum over background rows, each times its `scale`.

    forest   at.WHOLE or at.REST
    ours     int32[SLOTS], theirs int32[B, SLOTS], scale float64[B]
    weight   `shapley_weights`
    """
    nodes = ints[at.NODES]
    feature = ints[ints[forest + at.FOREST_FEATURE_AT] : ints[forest + at.FOREST_FEATURE_AT] + nodes]
    values = floats[ints[forest + at.FOREST_VALUES_AT] : ints[forest + at.FOREST_VALUES_AT] + nodes]
    links = ints[ints[at.NODES_AT] : ints[at.NODES_AT] + 4 * nodes].reshape(4, nodes)
    owner = np.zeros(ints[at.FEATURES], np.uint8)
    splits = np.empty(ints[at.PATH_MAX] + 1, np.int32)
    kept = np.empty((ints[at.PATH_MAX] + 1, 2))
    for tree in range(ints[forest + at.FOREST_TREES]):
        root = ints[ints[forest + at.FOREST_ROOTS_AT] + tree]
        for z in range(theirs.shape[0]):
            _play(feature, values, links, root, ours, theirs[z], scale[z], weight, owner, splits, kept, out)


@compiled
def _play(
    feature: Ints,
    values: Floats,
    links: Ints,
    root: int,
    ours: Ints,
    theirs: Ints,
    scale: float,
    weight: Floats,
    owner: Ints,
    splits: Ints,
    kept: Floats,
    out: Floats,
) -> None:
    """One game on one tree. `owner` uint8[F] is 0 before and after; `splits` and `kept` are scratch."""
    a, b, depth, node = 0, 0, 0, root
    while True:
        while feature[node] >= 0:
            f = feature[node]
            our_left = ours[links[0, node]] <= links[1, node]
            their_left = theirs[links[0, node]] <= links[1, node]
            left = our_left
            if owner[f] == _THEIRS:
                left = their_left
            elif owner[f] == _ANYONES and our_left != their_left:
                splits[depth] = node
                depth += 1
                owner[f] = _OURS
                a += 1
            node = links[2, node] if left else links[3, node]
        positive = values[node] * weight[a, b]
        negative = values[node] * weight[b, a]
        while depth > 0 and owner[feature[splits[depth - 1]]] == _THEIRS:
            depth -= 1
            f = feature[splits[depth]]
            out[f] -= scale * negative
            positive += kept[depth, 0]
            negative += kept[depth, 1]
            owner[f] = _ANYONES
            b -= 1
        if depth == 0:
            return
        node = splits[depth - 1]
        f = feature[node]
        out[f] += scale * positive
        kept[depth - 1, 0] = positive
        kept[depth - 1, 1] = negative
        owner[f] = _THEIRS
        a -= 1
        b += 1
        node = links[2, node] if theirs[links[0, node]] <= links[1, node] else links[3, node]


@compiled
def play_leaves(
    ints: Ints, floats: Floats, slots: Ints, points: Floats, weights: Floats, spans: Longs, out: Floats
) -> None:
    """Adds to `out` float64[F] the path-dependent shares of the leaves without tables, for the slots of one row.

    points, weights, spans are `quadrature`. A leaf of d conditions costs d² / 2 steps.
    """
    conditions = ints[at.CONDITIONS]
    tests = ints[at.TESTS]
    feature = ints[ints[at.CONDITIONS_AT] : ints[at.CONDITIONS_AT] + conditions]
    first_test = ints[ints[at.CONDITIONS_AT] + conditions + 1 : ints[at.CONDITIONS_AT] + 2 * conditions + 2]
    test = ints[ints[at.TESTS_AT] : ints[at.TESTS_AT] + 3 * tests].reshape(3, tests)
    starts = ints[ints[at.LEAVES_AT] : ints[at.LEAVES_AT] + ints[at.LEAVES] + 1]
    met = np.empty(conditions, np.bool_)
    for c in range(conditions):
        met[c] = True
        for i in range(first_test[c], first_test[c + 1]):
            met[c] &= (slots[test[0, i]] <= test[1, i]) == (test[2, i] != 0)
    shares = np.empty(ints[at.PATH_MAX])
    for leaf in range(ints[at.LEAVES]):
        begin = starts[leaf]
        end = starts[leaf + 1]
        size = end - begin
        shares[:size] = 0.0
        play_path_dependent(
            met[begin:end],
            floats[ints[at.RATIOS_AT] + begin : ints[at.RATIOS_AT] + end],
            floats[ints[at.LEAF_VALUES_AT] + leaf],
            points[spans[size, 0] : spans[size, 1]],
            weights[spans[size, 0] : spans[size, 1]],
            shares[:size],
        )
        for i in range(size):
            out[feature[begin + i]] += shares[i]


@compiled
def path_max(ints: Ints, forest: int) -> int:
    """The most distinct features on one path of a forest (at.WHOLE or at.REST).

    Nodes must stand before their children, and none may have two parents: else this takes exponential time.
    """
    nodes = ints[at.NODES]
    feature = ints[ints[forest + at.FOREST_FEATURE_AT] : ints[forest + at.FOREST_FEATURE_AT] + nodes]
    links = ints[ints[at.NODES_AT] : ints[at.NODES_AT] + 4 * nodes].reshape(4, nodes)
    seen = np.zeros(ints[at.FEATURES], np.int64)
    opened = np.empty(nodes + 1, np.int64)
    turns = np.zeros(nodes + 1, np.uint8)  # children already visited
    most, distinct = 0, 0
    for tree in range(ints[forest + at.FOREST_TREES]):
        opened[0], depth = ints[ints[forest + at.FOREST_ROOTS_AT] + tree], 1
        while depth > 0:
            node = opened[depth - 1]
            f = feature[node]
            if f < 0 or turns[depth - 1] == 2:
                if f >= 0:
                    seen[f] -= 1
                    distinct -= seen[f] == 0
                turns[depth - 1] = 0
                depth -= 1
                continue
            if turns[depth - 1] == 0:
                distinct += seen[f] == 0
                seen[f] += 1
                most = max(most, distinct)
            opened[depth] = links[2 + turns[depth - 1], node]
            turns[depth - 1] += 1
            depth += 1
    return most
