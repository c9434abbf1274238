"""Each leaf as a conjunction: one condition per distinct feature on its path.

    x0 <= 3 ── x1 <= 5 ── x0 <= 1 ── leaf        leaf is reached when   x0 in [-inf, 1]  and  x1 in [-inf, 5]

A condition is an interval and whether NaN passes. What a tree does with a row depends only on which conditions of each
leaf the row satisfies, and so do the Shapley values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models._arrays import Bools, Floats, Ints
from models.errors import UnsupportedModelError
from models.trees import LEAF, Ensemble, Tree

CONDITIONS_MAX = 62
"""Conditions of one leaf are bits of one int64."""

_Interval = tuple[float, float, bool]
_ANYTHING: _Interval = (-math.inf, math.inf, True)


@dataclass(frozen=True, slots=True)
class Leaves:
    """Conditions of leaf `l` are the entries `start[l]:start[l + 1]` of `feature`, `low`, `high` and `missing`.

    start    int64[L + 1]
    feature  int32[C], distinct within a leaf
    low, high float64[C], both ends belong to the interval; low > high lets no number pass
    missing  bool[C], whether NaN passes
    value    float64[L]
    constant what leaves without a condition add to every margin
    """

    start: NDArray[np.int64]
    feature: Ints
    low: Floats
    high: Floats
    missing: Bools
    value: Floats
    constant: float

    def sizes(self) -> NDArray[np.int64]:
        """Number of conditions of each leaf, int64[L]."""
        return np.diff(self.start)

    def take(self, chosen: Bools) -> Leaves:
        """The chosen leaves (bool[L]) alone, without the constant."""
        entries = np.repeat(chosen, self.sizes())
        start = np.concatenate([[0], np.cumsum(self.sizes()[chosen])]).astype(np.int64)
        feature, low, high, missing = (
            self.feature[entries],
            self.low[entries],
            self.high[entries],
            self.missing[entries],
        )
        return Leaves(start, feature, low, high, missing, self.value[chosen], 0.0)


def leaves_of(ensemble: Ensemble) -> Leaves:
    """All leaves that a row can reach. Raises UnsupportedModelError for a path of more than CONDITIONS_MAX features."""
    start, values, constant = [0], [], 0.0
    conditions: list[tuple[int, float, float, bool]] = []
    for tree in ensemble.trees:
        for path, value in _paths(tree):
            if not path:
                constant += value
                continue
            conditions.extend((feature, *interval) for feature, interval in path.items())
            start.append(len(conditions))
            values.append(value)
            if len(path) > CONDITIONS_MAX:
                raise UnsupportedModelError(
                    f"a path tests {len(path)} features, more than {CONDITIONS_MAX}: limit the depth of the trees"
                )
    feature, low, high, missing = zip(*conditions, strict=True) if conditions else ((), (), (), ())
    return Leaves(
        np.array(start, np.int64),
        np.array(feature, np.int32),
        np.array(low, np.float64),
        np.array(high, np.float64),
        np.array(missing, np.bool_),
        np.array(values, np.float64),
        constant,
    )


def _paths(tree: Tree) -> Iterator[tuple[dict[int, _Interval], float]]:
    """The conditions and the value of every leaf that can be reached."""
    waiting: list[tuple[int, dict[int, _Interval]]] = [(0, {})]
    while waiting:
        node, path = waiting.pop()
        feature = int(tree.feature[node])
        if feature == LEAF:
            yield path, float(tree.value[node])
            continue
        sides = _sides(path.get(feature, _ANYTHING), float(tree.threshold[node]), bool(tree.missing_left[node]))
        for child, interval in zip((int(tree.left[node]), int(tree.right[node])), sides, strict=True):
            if interval == _ANYTHING:
                waiting.append((child, path))
            elif interval[2] or interval[0] <= interval[1]:
                waiting.append((child, path | {feature: interval}))


def _sides(interval: _Interval, threshold: float, missing_left: bool) -> tuple[_Interval, _Interval]:
    """The interval cut by `x <= threshold`: left and right part. No number is above an infinite threshold."""
    low, high, missing = interval
    left = (low, min(high, threshold), missing and missing_left)
    above = math.nextafter(threshold, math.inf)
    right = (max(low, above), -math.inf if threshold == math.inf else high, missing and not missing_left)
    return left, right
