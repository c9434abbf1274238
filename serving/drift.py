"""Whether a model's scores still lie as they did where it was trained: the population stability index.

PSI = Σ (live − expected) · ln(live / expected) over the tenths of the reference. By custom: below 0.1 nothing has
changed, from 0.25 on the population is another one. Source: Siddiqi, Credit Risk Scorecards (2006), chapter 8.

The reference are the scores of the bundle's background rows. Training and import take them from the rows that the
model was fitted on or brought with, evenly spaced by margin: a hundred of them have ten in each tenth, so that their
tenths are those of all the rows, as far as a hundred ranks can say.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TENTHS = 10
WINDOW = 10_000
"""Live shares are those of the last WINDOW to 2 · WINDOW answers."""
ANSWERS_MIN = 500
"""With fewer, chance alone moves the index by more than 9 / ANSWERS_MIN = 0.018, and it is not told."""
_SMOOTHING = 0.5
"""Is added to the count of each part: an empty one would make the index infinite."""


@dataclass(frozen=True, slots=True)
class ScoreReference:
    """The expected scores in parts: `counts[i]` of them are above `edges[i - 1]` and not above `edges[i]`."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def rows(self) -> int:
        """How many scores it rests on."""
        return sum(self.counts)


NO_REFERENCE = ScoreReference((), (0,))


def reference_of(scores: NDArray[np.float64]) -> ScoreReference:
    """The tenths of scores float64[N], fewer where many scores are equal.

    An edge lies between two scores, so that one that comes again, to the last digit or nearly, is in the same part.
    """
    values, counts = np.unique(scores, return_counts=True)
    if not values.size:
        return NO_REFERENCE
    shares = np.cumsum(counts) / scores.size
    wanted = np.arange(1, TENTHS) / TENTHS
    places = np.unique(np.searchsorted(shares, wanted - 1e-9))
    places = places[places < values.size - 1]
    edges = (values[places] + values[places + 1]) / 2
    parts = np.bincount(np.searchsorted(edges, scores), minlength=edges.size + 1)
    return ScoreReference(tuple(edges.tolist()), tuple(parts.tolist()))


def population_stability_index(expected: Sequence[int], live: Sequence[int]) -> float:
    """The index of two series of counts of the same parts."""
    expected_shares, live_shares = _shares(expected), _shares(live)
    return sum((b - a) * math.log(b / a) for a, b in zip(expected_shares, live_shares, strict=True))


def _shares(counts: Sequence[int]) -> list[float]:
    whole = sum(counts) + _SMOOTHING * len(counts)
    return [(count + _SMOOTHING) / whole for count in counts]


class ScoreWindow:
    """The newest scores, counted in the parts of a reference."""

    __slots__ = ("_before", "_edges", "_left", "_now", "_reference")

    def __init__(self, reference: ScoreReference) -> None:
        self._reference, self._edges = reference, reference.edges
        self._before, self._now = [0] * len(reference.counts), [0] * len(reference.counts)
        self._left = WINDOW

    def add(self, score: float) -> None:
        """Count one score; every WINDOW the older half goes."""
        self._now[bisect_left(self._edges, score)] += 1
        self._left -= 1
        if not self._left:
            self._before, self._now, self._left = self._now, [0] * len(self._now), WINDOW

    @property
    def answers(self) -> int:
        """How many scores are counted."""
        return sum(self._before) + WINDOW - self._left

    def psi(self) -> float | None:
        """The index against the reference; None as long as it would say nothing."""
        if self.answers < ANSWERS_MIN or len(self._edges) < 1:
            return None
        live = [a + b for a, b in zip(self._before, self._now, strict=True)]
        return population_stability_index(self._reference.counts, live)
