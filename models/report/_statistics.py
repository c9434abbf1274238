"""Intervals and distances. Labels are int8[n] of 0 and 1, scores float64[n]."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from models._arrays import Floats
from models.report._figures import Interval

_Z = 1.959963984540054
UNKNOWN = Interval(None, None, None)


def share_of(count: int, total: int) -> Interval:
    """count / total with Wilson's interval."""
    if not total:
        return UNKNOWN
    rate, z2 = count / total, _Z * _Z
    centre = (rate + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z * math.sqrt(rate * (1 - rate) / total + z2 / (4 * total * total)) / (1 + z2 / total)
    return Interval(rate, max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half)))


def roc_auc(labels: NDArray[np.int8], scores: Floats) -> Interval:
    """Area under the ROC curve with DeLong's interval; unknown with fewer than two rows of a class."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    if min(positive.size, negative.size) < 2:
        return UNKNOWN
    ranks = _midranks(np.concatenate([positive, negative]))
    above = (ranks[: positive.size] - _midranks(positive)) / negative.size
    below = 1.0 - (ranks[positive.size :] - _midranks(negative)) / positive.size
    area = float(above.mean())
    error = math.sqrt(above.var(ddof=1) / positive.size + below.var(ddof=1) / negative.size)
    return Interval(area, max(0.0, area - _Z * error), min(1.0, area + _Z * error))


def stability_index(expected: Floats, actual: Floats, bins: int = 10) -> float | None:
    """Population stability index over the deciles of `expected`, with NaN as a bin of its own; None without rows.

    Half a row is added to each bin, so that an empty one is not infinitely far.
    """
    if not expected.size or not actual.size:
        return None
    known = expected[~np.isnan(expected)]
    edges = np.unique(np.quantile(known, np.arange(1, bins) / bins)) if known.size else np.empty(0)
    shares = []
    for values in (expected, actual):
        present = values[~np.isnan(values)]
        binned = np.bincount(np.searchsorted(edges, present, side="left"), minlength=edges.size + 1)
        counts = np.append(binned, values.size - present.size) + 0.5
        shares.append(counts / counts.sum())
    return float(np.sum((shares[1] - shares[0]) * np.log(shares[1] / shares[0])))


def _midranks(values: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2.0)[place], np.float64)
