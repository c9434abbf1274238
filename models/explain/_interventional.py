"""Exact interventional Shapley values of trees, in log-odds, against a background sample.

For one leaf of value v, one row x and one background row z, a coalition S of features takes its values from x and the
rest from z. The leaf is reached when x satisfies the conditions on S and z those outside of S. Let `a` conditions be
satisfied by x alone and `b` by z alone; a condition satisfied by neither makes the leaf unreachable. The Shapley value
of this game has a closed form: v (a−1)! b! / (a+b)! for each of the a features, −v a! (b−1)! / (a+b)! for each of the
b, and 0 for the others. Shares add up over leaves and are averaged over the background (Lundberg et al., "From local
explanations to global understanding with explainable AI for trees", 2020; Laberge and Pequignot, "Understanding
interventional TreeSHAP", 2022).

A leaf with d conditions sees at most 2^d patterns of satisfied conditions, so the averaged shares of every pattern are
computed once; a row then costs comparisons and look-ups, whatever the size of the background. Leaves with too many
conditions for that are computed directly.
"""

from __future__ import annotations

from math import factorial

import numpy as np
from numpy.typing import NDArray

from models._arrays import Floats, as_matrix
from models.errors import InputError
from models.explain._kernels import add_directly, add_from_table, fill_table, patterns
from models.explain._leaves import CONDITIONS_MAX, Leaves, leaves_of
from models.explain._protocol import LOG_ODDS, Explanation
from models.trees import Ensemble

TABLE_BYTES_MAX = 64 * 2**20
_TABLE_CONDITIONS_MAX = 12


class InterventionalTrees:
    """Explains rows of an ensemble as differences from a background sample float64[B, F]."""

    def __init__(
        self,
        ensemble: Ensemble,
        background: Floats,
        reference: str,
        output_space: str = LOG_ODDS,
        *,
        table_bytes_max: int = TABLE_BYTES_MAX,
    ) -> None:
        """Builds the tables (about a second for some hundred trees).

        Raises InputError for an empty background or one of another width, UnsupportedModelError for paths that test
        more than 62 features.
        """
        rows = as_matrix(background, ensemble.feature_count)
        if not len(rows):
            raise InputError("an explanation compares with a background: give at least one row")
        leaves = leaves_of(ensemble)
        sizes = leaves.sizes()
        theirs = patterns(rows, leaves.start, leaves.feature, leaves.low, leaves.high, leaves.missing)
        largest = _largest_in_table(sizes, table_bytes_max)
        self._feature_count = ensemble.feature_count
        self._reference = reference
        self._output_space = output_space
        self._parts: list[_Table | _Direct] = [
            _Table(leaves.take(sizes == size), theirs[sizes == size])
            for size in range(1, largest + 1)
            if np.any(sizes == size)
        ]
        if np.any(sizes > largest):
            self._parts.append(_Direct(leaves.take(sizes > largest), theirs[sizes > largest]))
        self.base_value = _base_value(leaves, theirs)

    def explain(self, matrix: Floats) -> Explanation:
        """The explanation of float64[N, F], NaN for a missing value. Raises InputError for another width."""
        rows = as_matrix(matrix, self._feature_count)
        attributions = np.zeros(rows.shape)
        for part in self._parts:
            part.add(rows, attributions)
        return Explanation(self.base_value, attributions, self._reference, self._output_space)


class _Table:
    """Leaves of one number of conditions, with the shares of every pattern."""

    def __init__(self, leaves: Leaves, theirs: NDArray[np.int64]) -> None:
        size = int(leaves.sizes()[0])
        self._by_leaf = leaves.feature.reshape(-1, size)
        self._feature = np.ascontiguousarray(self._by_leaf.T)
        self._low = np.ascontiguousarray(leaves.low.reshape(-1, size).T)
        self._high = np.ascontiguousarray(leaves.high.reshape(-1, size).T)
        self._missing = np.ascontiguousarray(leaves.missing.reshape(-1, size).T)
        self._shares = np.zeros((leaves.value.size, 1 << size, size))
        fill_table(leaves.value, theirs, *_weights(), self._shares)

    def add(self, rows: Floats, out: Floats) -> None:
        add_from_table(rows, self._feature, self._low, self._high, self._missing, self._by_leaf, self._shares, out)


class _Direct:
    """Leaves with too many conditions for a table: one game per background row."""

    def __init__(self, leaves: Leaves, theirs: NDArray[np.int64]) -> None:
        self._leaves = leaves
        self._theirs = theirs
        self._weights = _weights()

    def add(self, rows: Floats, out: Floats) -> None:
        of = self._leaves
        ours = patterns(rows, of.start, of.feature, of.low, of.high, of.missing)
        add_directly(ours, of.start, of.feature, of.value, self._theirs, *self._weights, out)


def _base_value(leaves: Leaves, theirs: NDArray[np.int64]) -> float:
    """The background's mean margin: what its rows, alone, get from the leaves."""
    reached = theirs == (np.left_shift(1, leaves.sizes()) - 1)[:, None]
    return leaves.constant + float(leaves.value @ reached.mean(axis=1))


def _largest_in_table(sizes: NDArray[np.int64], bytes_max: int) -> int:
    """The most conditions for which all leaves with so many or fewer fit into the tables."""
    counts = np.bincount(np.minimum(sizes, _TABLE_CONDITIONS_MAX + 1), minlength=_TABLE_CONDITIONS_MAX + 2)
    conditions = np.arange(_TABLE_CONDITIONS_MAX + 1)
    used = np.cumsum(counts[:-1] * np.left_shift(1, conditions) * conditions * np.dtype(np.float64).itemsize)
    return int(np.count_nonzero(used <= bytes_max)) - 1


def _weights() -> tuple[Floats, Floats]:
    """(a−1)! b! / (a+b)! and a! (b−1)! / (a+b)!, float64[63, 63] each; 0 where the factorial is not defined."""
    size = CONDITIONS_MAX + 1
    only_ours = np.zeros((size, size))
    for a in range(1, size):
        for b in range(size):
            only_ours[a, b] = factorial(a - 1) * factorial(b) / factorial(a + b)
    return only_ours, only_ours.T.copy()
