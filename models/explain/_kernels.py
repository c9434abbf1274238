"""The compiled loops of the exact explanation: arrays in, arrays out. `_interventional` says what they compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from models._arrays import Bools, Floats, Ints

Longs = NDArray[np.int64]
_Function = TypeVar("_Function", bound=Callable[..., object])


def _compiled(function: _Function) -> _Function:
    return cast(_Function, numba.njit(cache=True, nogil=True)(function))


@_compiled
def _pattern(row: Floats, feature: Ints, low: Floats, high: Floats, missing: Bools, first: int, last: int) -> int:
    """Bit `i` says whether the row satisfies condition `first + i`."""
    bits = 0
    for c in range(first, last):
        x = row[feature[c]]
        passes = ((x >= low[c]) & (x <= high[c])) | (missing[c] & (x != x))  # only NaN differs from itself
        bits |= int(passes) << (c - first)
    return bits


@_compiled
def _ones(bits: int) -> int:
    count = 0
    while bits:
        bits &= bits - 1
        count += 1
    return count


@_compiled
def patterns(matrix: Floats, start: Longs, feature: Ints, low: Floats, high: Floats, missing: Bools) -> Longs:
    """Which conditions of each leaf each row satisfies: int64[L, N] of bits."""
    found = np.empty((start.size - 1, matrix.shape[0]), np.int64)
    for leaf in range(start.size - 1):
        for n in range(matrix.shape[0]):
            found[leaf, n] = _pattern(matrix[n], feature, low, high, missing, start[leaf], start[leaf + 1])
    return found


@_compiled
def _add_game(
    ours: int, theirs: int, size: int, only_ours: Floats, only_theirs: Floats, scale: float, shares: Floats
) -> None:
    """Adds to `shares[:size]` the Shapley values of the game of one leaf, one row and one background row."""
    if (ours | theirs) != (1 << size) - 1:
        return
    a = _ones(ours & ~theirs)
    b = _ones(theirs & ~ours)
    for i in range(size):
        mine = (ours >> i) & 1
        other = (theirs >> i) & 1
        if mine > other:
            shares[i] += scale * only_ours[a, b]
        elif other > mine:
            shares[i] -= scale * only_theirs[a, b]


@_compiled
def fill_table(value: Floats, background: Longs, only_ours: Floats, only_theirs: Floats, table: Floats) -> None:
    """Writes, for each leaf and each pattern of its d conditions, the d shares averaged over the background rows.

    value float64[L], background int64[L, B] patterns, table float64[L, 2^d, d] of zeros.
    """
    size = table.shape[2]
    for leaf in range(value.size):
        scale = value[leaf] / background.shape[1]
        for ours in range(table.shape[1]):
            for b in range(background.shape[1]):
                _add_game(ours, background[leaf, b], size, only_ours, only_theirs, scale, table[leaf, ours])


@_compiled
def add_from_table(
    matrix: Floats, feature: Ints, low: Floats, high: Floats, missing: Bools, by_leaf: Ints, table: Floats, out: Floats
) -> None:
    """Adds the shares of leaves that all have d conditions to `out` float64[N, F].

    Conditions lie in arrays [d, L], so that the comparisons run over neighbours in memory; `by_leaf` is `feature`
    as int32[L, d] for the look-ups. About three times as fast as going leaf by leaf over leaves of mixed sizes.
    """
    size, leaves = feature.shape
    bits = np.empty(leaves, np.int64)
    for n in range(matrix.shape[0]):
        row = matrix[n]
        bits[:] = 0
        for c in range(size):
            for leaf in range(leaves):
                x = row[feature[c, leaf]]
                passes = ((x >= low[c, leaf]) & (x <= high[c, leaf])) | (missing[c, leaf] & (x != x))
                bits[leaf] |= int(passes) << c
        for leaf in range(leaves):
            for c in range(size):
                out[n, by_leaf[leaf, c]] += table[leaf, bits[leaf], c]


@_compiled
def add_directly(
    ours: Longs,
    start: Longs,
    feature: Ints,
    value: Floats,
    background: Longs,
    only_ours: Floats,
    only_theirs: Floats,
    out: Floats,
) -> None:
    """Adds the shares of every leaf to `out` float64[N, F], one game per background row: the form without tables.

    ours int64[L, N] and background int64[L, B] are patterns.
    """
    shares = np.empty(64, np.float64)
    for leaf in range(start.size - 1):
        first = start[leaf]
        size = start[leaf + 1] - first
        scale = value[leaf] / background.shape[1]
        for n in range(ours.shape[1]):
            shares[:size] = 0.0
            for b in range(background.shape[1]):
                _add_game(ours[leaf, n], background[leaf, b], size, only_ours, only_theirs, scale, shares)
            for i in range(size):
                out[n, feature[first + i]] += shares[i]
