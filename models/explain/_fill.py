"""Fills the tables of shares, once, at publishing.

Interventional: for one leaf of value v, one row x and one background row z, a coalition S of features takes its values
from x and the rest from z. The leaf is reached when x satisfies the conditions on S and z those outside of S. Let `a`
conditions be satisfied by x alone and `b` by z alone; a condition satisfied by neither makes the leaf unreachable. The
Shapley value of this game has a closed form: v (a−1)! b! / (a+b)! for each of the a features, −v a! (b−1)! / (a+b)! for
each of the b, and 0 for the others (Lundberg et al., "From local explanations to global understanding with explainable
AI for trees", 2020; Laberge and Pequignot, "Understanding interventional TreeSHAP", 2022).

Path-dependent: a condition outside of S is met by the share r of the training rows at its nodes that meet it. With
o = 1 for the conditions that x satisfies, else 0, the leaf's game is v Π_S o Π_{not S} r, and its Shapley value is

    v (o_i − r_i) ∫₀¹ Π_{j ≠ i} (r_j (1 − t) + o_j t) dt

since ∫ t^k (1−t)^(d−1−k) dt = k! (d−1−k)! / d!. The integrand is a polynomial of degree d − 1, so Gauss and Legendre's
rule with ⌈d / 2⌉ points or more is exact; all terms are positive, so nothing cancels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models._arrays import Bools, Floats, Ints
from models._compiled import compiled
from models.explain import _layout as at
from models.explain._kernels import read_patterns, read_slots
from models.explain._tables import Compiled

Longs = NDArray[np.int64]

_NEWTON_STEPS = 6
"""The first guess has three digits or more, and each step doubles them."""


def fill_interventional(compiled_: Compiled, background: Floats) -> None:
    """Writes the shares, averaged over the background float64[B, F], into the tables."""
    c = compiled_
    games = _Games.of(c)
    first = np.concatenate([[0], np.cumsum(np.left_shift(1, c.tests))]).astype(np.int64)
    counts = np.zeros(first[-1])
    _count_patterns(c.ints, c.floats, background, first, counts)
    weights = shapley_weights(games.size_max)
    _fill_interventional(
        c.floats, c.game_start, c.table_at, c.stride, first, counts / len(background), *games.arrays, weights
    )


def fill_path_dependent(compiled_: Compiled) -> None:
    """Writes the shares, weighted by covers, into the tables."""
    c = compiled_
    games = _Games.of(c)
    points, weights, spans = quadrature(games.size_max)
    _fill_path_dependent(
        c.floats, c.game_start, c.table_at, c.stride, c.tests, *games.arrays, games.ratio, points, weights, spans
    )


def shapley_weights(size_max: int) -> Floats:
    """(a−1)! b! / (a+b)! as float64[size_max + 1, size_max + 1]; 0 for a = 0, where nobody asks."""
    weights = np.zeros((size_max + 1, size_max + 1))
    a = np.arange(1, size_max + 1)
    weights[1:, 0] = 1.0 / a
    for b in range(1, size_max + 1):
        weights[1:, b] = weights[1:, b - 1] * b / (a + b)
    return weights


def quadrature(size_max: int) -> tuple[Floats, Floats, Longs]:
    """Points and weights of rules on [0, 1], and where in them the rule for a number of conditions begins and ends,
    int64[size_max + 1, 2].

    Conditions in their thousands share some dozens of rules, each with up to an eighth more points than it needs.
    """
    counts = [_rounded_up((size + 1) // 2) for size in range(size_max + 1)]
    rules = {count: _gauss_legendre(count) for count in sorted(set(counts[1:]))}
    ends = dict(zip(rules, np.cumsum(list(rules), dtype=np.int64).tolist(), strict=True))
    points = np.concatenate([np.empty(0), *[(points + 1) / 2 for points, _ in rules.values()]])
    weights = np.concatenate([np.empty(0), *[weights / 2 for _, weights in rules.values()]])
    spans = [(0, 0)] + [(ends[count] - count, ends[count]) for count in counts[1:]]
    return points, weights, np.array(spans, np.int64)


def _rounded_up(count: int) -> int:
    """To four binary digits."""
    step = 1 << max(count.bit_length() - 4, 0)
    return -(-count // step) * step


def _gauss_legendre(count: int) -> tuple[Floats, Floats]:
    """Points and weights of the rule on [−1, 1], by Newton's method on the polynomials' recurrence: in quadratic time,
    and for many points closer than by a matrix's eigenvalues."""
    x = np.cos(np.pi * (np.arange(count, 0, -1) - 0.25) / (count + 0.5))
    slope = np.ones(count)
    for _ in range(_NEWTON_STEPS):
        value, before = np.ones(count), np.zeros(count)
        for n in range(1, count + 1):
            value, before = ((2 * n - 1) * x * value - (n - 1) * before) / n, value
        slope = count * (before - x * value) / (1 - x * x)
        x = x - value / slope
    return x, 2 / ((1 - x * x) * slope * slope)


class _Games:
    """The games of all groups as arrays: value, first condition, and column, mask, want and ratio of each condition."""

    def __init__(self, arrays: tuple[Floats, Longs, Longs, Longs, Longs], ratio: Floats, size_max: int) -> None:
        self.arrays, self.ratio, self.size_max = arrays, ratio, size_max

    @classmethod
    def of(cls, c: Compiled) -> _Games:
        sizes = [len(game.columns) for game in c.games]
        return cls(
            (
                np.array([game.value for game in c.games], np.float64),
                np.cumsum([0, *sizes]).astype(np.int64),
                np.array([column for game in c.games for column in game.columns], np.int64),
                np.array([mask for game in c.games for mask in game.masks], np.int64),
                np.array([want for game in c.games for want in game.wants], np.int64),
            ),
            np.array([ratio for game in c.games for ratio in game.ratios], np.float64),
            max(sizes, default=0),
        )


@compiled
def _count_patterns(ints: Ints, floats: Floats, rows: Floats, first: Longs, counts: Floats) -> None:
    """How many rows have each pattern of each group: `counts[first[g] + pattern]`."""
    slots = np.empty(ints[at.SLOTS], np.int32)
    above = np.empty(1 + ints[at.UPPER], np.int32)
    patterns = np.empty(ints[at.GROUPS], np.int32)
    for n in range(rows.shape[0]):
        read_slots(ints, floats, rows[n], slots)
        read_patterns(ints, slots, above, patterns)
        for g in range(patterns.size):
            counts[first[g] + patterns[g]] += 1.0


@compiled
def _met(pattern: int, masks: Longs, wants: Longs) -> int:
    """Bit `i` says whether a group's pattern satisfies condition `i` of a leaf."""
    bits = 0
    for i in range(masks.size):
        if pattern & masks[i] == wants[i]:
            bits |= 1 << i
    return bits


@compiled
def _spread(
    floats: Floats, table: int, stride: int, patterns: int, columns: Longs, masks: Longs, wants: Longs, shares: Floats
) -> None:
    """Adds a leaf's shares float64[2^d, d] to every row of its group's table."""
    for pattern in range(patterns):
        ours = _met(pattern, masks, wants)
        for i in range(columns.size):
            floats[table + pattern * stride + columns[i]] += shares[ours, i]


@compiled
def _fill_interventional(
    floats: Floats,
    game_start: Longs,
    table_at: Longs,
    stride: Longs,
    first: Longs,
    frequency: Floats,
    value: Floats,
    start: Longs,
    column: Longs,
    mask: Longs,
    want: Longs,
    weight: Floats,
) -> None:
    for g in range(table_at.size):
        patterns = first[g + 1] - first[g]
        for game in range(game_start[g], game_start[g + 1]):
            columns = column[start[game] : start[game + 1]]
            masks = mask[start[game] : start[game + 1]]
            wants = want[start[game] : start[game + 1]]
            theirs = np.zeros(1 << columns.size)
            for pattern in range(patterns):
                theirs[_met(pattern, masks, wants)] += frequency[first[g] + pattern]
            shares = np.zeros((1 << columns.size, columns.size))
            for ours in range(shares.shape[0]):
                _play_interventional(ours, theirs, value[game], weight, shares[ours])
            _spread(floats, table_at[g], stride[g], patterns, columns, masks, wants, shares)


@compiled
def _play_interventional(ours: int, theirs: Floats, value: float, weight: Floats, shares: Floats) -> None:
    """The shares of one leaf for one pattern: `theirs` is how often the background has each pattern.

    Only patterns that have what ours lacks count: `lacking` and any part of `ours`.
    """
    size = shares.size
    lacking = ((1 << size) - 1) & ~ours
    b = _ones(lacking)
    part = ours
    negative = 0.0
    while True:
        frequency = theirs[lacking | part]
        if frequency != 0.0:
            alone = ours & ~part
            a = _ones(alone)
            if a > 0:
                positive = value * frequency * weight[a, b]
                for i in range(size):
                    if (alone >> i) & 1:
                        shares[i] += positive
            if b > 0:
                negative += value * frequency * weight[b, a]
        if part == 0:
            break
        part = (part - 1) & ours
    for i in range(size):
        if (lacking >> i) & 1:
            shares[i] = -negative


@compiled
def _ones(bits: int) -> int:
    count = 0
    while bits:
        bits &= bits - 1
        count += 1
    return count


@compiled
def _fill_path_dependent(
    floats: Floats,
    game_start: Longs,
    table_at: Longs,
    stride: Longs,
    tests: Longs,
    value: Floats,
    start: Longs,
    column: Longs,
    mask: Longs,
    want: Longs,
    ratio: Floats,
    points: Floats,
    weights: Floats,
    spans: Longs,
) -> None:
    for g in range(table_at.size):
        for game in range(game_start[g], game_start[g + 1]):
            columns = column[start[game] : start[game + 1]]
            size = columns.size
            ratios = ratio[start[game] : start[game + 1]]
            met = np.empty(size, np.bool_)
            shares = np.zeros((1 << size, size))
            for ours in range(shares.shape[0]):
                for i in range(size):
                    met[i] = (ours >> i) & 1
                rule = slice(spans[size, 0], spans[size, 1])
                play_path_dependent(met, ratios, value[game], points[rule], weights[rule], shares[ours])
            masks = mask[start[game] : start[game + 1]]
            wants = want[start[game] : start[game + 1]]
            _spread(floats, table_at[g], stride[g], 1 << tests[g], columns, masks, wants, shares)


@compiled
def play_path_dependent(
    met: Bools, ratios: Floats, value: float, points: Floats, weights: Floats, shares: Floats
) -> None:
    """Adds to `shares` float64[d] those of one leaf: `met` bool[d] by the row, `ratios` by the training rows."""
    size = shares.size
    behind = np.empty(size + 1)
    for q in range(points.size):
        t = points[q]
        behind[size] = 1.0
        for i in range(size - 1, -1, -1):
            behind[i] = behind[i + 1] * (ratios[i] * (1.0 - t) + (t if met[i] else 0.0))
        before = value * weights[q]
        for i in range(size):
            shares[i] += ((1.0 if met[i] else 0.0) - ratios[i]) * before * behind[i + 1]
            before *= ratios[i] * (1.0 - t) + (t if met[i] else 0.0)
