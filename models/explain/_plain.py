"""The explanations in plain NumPy, leaf by leaf and row by row: what the compiled tables must give. Slow.

`_fill` has the formulas.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import factorial

import numpy as np

from models._arrays import Bools, Floats
from models.trees import LEAF, Ensemble, Tree


def interventional_shares(ensemble: Ensemble, background: Floats, matrix: Floats) -> Floats:
    """Shares float64[N, F] of the margin, averaged over the background float64[B, F]."""
    out = np.zeros(matrix.shape)
    for tree in ensemble.trees:
        ours, theirs = goes_left(ensemble, tree, matrix), goes_left(ensemble, tree, background)
        for leaf, conditions in _leaves(tree):
            met, met_theirs = _met(ours, conditions), _met(theirs, conditions)
            for n, mine in enumerate(met):
                alone, other = mine & ~met_theirs, met_theirs & ~mine
                possible = (mine | met_theirs).all(axis=1)
                for i, feature in enumerate(conditions):
                    shares = [
                        _share(bool(x[i]), bool(z[i]), x.sum(), z.sum()) for x, z in zip(alone, other, strict=True)
                    ]
                    out[n, feature] += tree.value[leaf] * np.mean(np.where(possible, shares, 0.0))
    return out


def path_dependent_shares(ensemble: Ensemble, matrix: Floats) -> Floats:
    """Shares float64[N, F] of the margin, with the trees' covers for what is not known."""
    out = np.zeros(matrix.shape)
    for tree in ensemble.trees:
        assert tree.cover is not None
        ours = goes_left(ensemble, tree, matrix)
        for leaf, conditions in _leaves(tree):
            ratios = np.array([_ratio(tree, tests) for tests in conditions.values()])
            met = _met(ours, conditions).astype(np.float64)
            points, weights = np.polynomial.legendre.leggauss(len(conditions))
            for t, weight in zip((points + 1) / 2, weights / 2, strict=True):
                factors = ratios * (1 - t) + met * t
                for i, feature in enumerate(conditions):
                    others = np.prod(np.delete(factors, i, axis=1), axis=1)
                    out[:, feature] += tree.value[leaf] * weight * (met[:, i] - ratios[i]) * others
    return out


def goes_left(ensemble: Ensemble, tree: Tree, matrix: Floats) -> Bools:
    """Whether each row goes left at each node, bool[N, nodes]; at leaves it means nothing."""
    rows = matrix.astype(np.float32).astype(np.float64) if ensemble.single_precision else matrix
    values = rows[:, np.maximum(tree.feature, 0)]
    left = np.where(np.isnan(values), tree.missing_left, values <= tree.threshold)
    for node, members in tree.members.items():
        found = [members.holds(float(x)) for x in values[:, node]]
        left[:, node] = np.where(np.isnan(values[:, node]), tree.missing_left[node], found)
    return left


_Conditions = dict[int, list[tuple[int, bool]]]


def _leaves(tree: Tree) -> Iterator[tuple[int, _Conditions]]:
    """Each leaf with, by feature, the nodes on its path and whether the path goes left there."""
    waiting: list[tuple[int, _Conditions]] = [(0, {})]
    while waiting:
        node, conditions = waiting.pop()
        feature = int(tree.feature[node])
        if feature == LEAF:
            if conditions:
                yield node, conditions
            continue
        for child, left in ((int(tree.left[node]), True), (int(tree.right[node]), False)):
            waiting.append((child, conditions | {feature: [*conditions.get(feature, []), (node, left)]}))


def _met(left: Bools, conditions: _Conditions) -> Bools:
    """Which conditions each row satisfies, bool[N, conditions]."""
    return np.column_stack([np.all([left[:, n] == side for n, side in tests], axis=0) for tests in conditions.values()])


def _share(ours: bool, theirs: bool, a: int, b: int) -> float:
    if ours:
        return factorial(a - 1) * factorial(b) / factorial(a + b)
    return -factorial(a) * factorial(b - 1) / factorial(a + b) if theirs else 0.0


def _ratio(tree: Tree, tests: list[tuple[int, bool]]) -> float:
    assert tree.cover is not None
    children = [(node, int(tree.left[node] if side else tree.right[node])) for node, side in tests]
    return float(np.prod([tree.cover[child] / tree.cover[node] for node, child in children]))
