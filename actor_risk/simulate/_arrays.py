"""Small vectorised draws that every generator shares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

SECOND_MS = 1_000
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000

_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Pools:
    """Groups of members, stored flat: group g owns `members[first[g] : first[g] + size[g]]`, size[g] ≥ 1."""

    members: IntArray
    size: IntArray

    def draw(self, rng: np.random.Generator, group: IntArray) -> IntArray:
        """One member of each given group, uniformly; same length as `group`."""
        first = np.cumsum(self.size) - self.size
        offset = (rng.random(len(group)) * self.size[group]).astype(np.int64)
        return np.asarray(self.members[first[group] + offset])


def cumulative(weights: FloatArray) -> FloatArray:
    """The cumulative distribution of non-negative weights, ending in 1."""
    total = np.cumsum(weights)
    return np.asarray(total / total[-1])


def draw_by(rng: np.random.Generator, cdf: FloatArray, n: int) -> IntArray:
    """n indices into `cdf`, with its probabilities."""
    index = np.searchsorted(cdf, rng.random(n), side="right")
    return np.asarray(np.minimum(index, len(cdf) - 1), dtype=np.int64)


def happens(rng: np.random.Generator, probability: FloatArray | float, n: int) -> BoolArray:
    """n independent coin flips, each true with its probability."""
    return np.asarray(rng.random(n) < probability)


def lognormal_ms(rng: np.random.Generator, median_ms: FloatArray | float, sigma: float, n: int) -> IntArray:
    """n positive delays in milliseconds, log-normal about their median."""
    delays: FloatArray = median_ms * np.exp(sigma * rng.standard_normal(n)) + 1
    return delays.astype(np.int64)


def group_of(sizes: IntArray) -> IntArray:
    """For each member of consecutive groups of these sizes, the index of its group."""
    return np.repeat(np.arange(len(sizes)), sizes)


def running_total(values: IntArray, sizes: IntArray) -> IntArray:
    """Cumulative sums of `values` within consecutive groups, counted from each group's first member, which has 0."""
    total = np.cumsum(values)
    first = (np.cumsum(sizes) - sizes)[sizes > 0]
    return np.asarray(total - np.repeat(total[first], sizes[sizes > 0]))


def spread_over(total: int, weights: FloatArray) -> IntArray:
    """`total` shared out by weight, each share rounded down but at least 1; empty for no weights."""
    if len(weights) == 0:
        return np.empty(0, dtype=np.int64)
    return np.asarray(np.maximum(1, total * weights / weights.sum()), dtype=np.int64)


def evenly(rng: np.random.Generator, n: int) -> FloatArray:
    """n numbers in [0, 1) that fill it evenly from a random start: the additive sequence of the golden ratio.

    Any run of successive ones is spread out, so a part of the span never lacks one kind of abuse by bad luck.
    """
    return np.asarray((rng.random() + np.arange(n) * _GOLDEN) % 1)
