"""From one share for each feature to the few reasons that a person reads: features of one family are one reason.

base value + attributions of the reasons + the rest = margin, as with single features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models._arrays import Floats, as_matrix
from models._compiled import compiled
from models.manifest import UNNAMED_ACTOR_TEXT, Feature, ReasonText

Places = NDArray[np.intp]
_NONE = -1


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a reason says. `family` is the feature's reference where a feature is a reason by itself."""

    family: str
    code: str
    analyst: str
    actor: str


class Reason(NamedTuple):
    """A family's share of one margin.

    places    its strongest features, by their places in the vector: those that move the margin furthest in the
              direction of `attribution` come first; none without a share
    rest      sum of the attributions of its other features
    members   int[k], the places of all its features
    """

    meaning: Meaning
    attribution: float
    places: tuple[int, ...]
    rest: float
    members: Places


class Reasons(NamedTuple):
    """The strongest reasons of one row, strongest first, and the sum of all other attributions."""

    strongest: tuple[Reason, ...]
    rest: float


class ReasonIndex:
    """Which feature belongs to which reason, worked out once for each model version."""

    def __init__(
        self, features: Sequence[Feature], texts: Sequence[ReasonText], descriptions: Sequence[str] = ()
    ) -> None:
        """`descriptions`: what analysts read of a feature without a family, one for each feature; else its own."""
        by_family = {text.family: Meaning(text.family, text.code, text.analyst, text.actor) for text in texts}
        shown = descriptions or [feature.description or feature.ref for feature in features]
        meanings = [
            by_family.get(feature.family) or Meaning(feature.ref, feature.code, about, UNNAMED_ACTOR_TEXT)
            for feature, about in zip(features, shown, strict=True)
        ]
        self.families = tuple(meaning.family for meaning in meanings)
        self._meanings = tuple(dict.fromkeys(meanings))
        groups = {meaning: group for group, meaning in enumerate(self._meanings)}
        group_of = np.array([groups[meaning] for meaning in meanings], np.intp)
        self._ordered: Places = np.argsort(group_of, kind="stable")
        self._begins: Places = np.searchsorted(group_of[self._ordered], np.arange(len(groups) + 1))
        self._members = tuple(np.split(self._ordered, self._begins[1:-1]))

    def strongest(self, attributions: Floats, count: int, features_max: int) -> Reasons:
        """The `count` reasons with the largest sums of float64[F] by absolute size; sums of zero are no reasons.

        Each names at most `features_max` features.
        """
        return self.strongest_of(attributions[np.newaxis], count, features_max)[0]

    def strongest_of(self, attributions: Floats, count: int, features_max: int) -> list[Reasons]:
        """The same for each row of float64[N, F]. Raises InputError for another width."""
        matrix = as_matrix(attributions, len(self._ordered))
        kept = min(max(count, 0), len(self._meanings))
        places, sums = np.empty((len(matrix), kept, 1 + features_max), np.intp), np.empty((len(matrix), 2 * kept + 1))
        _find_strongest(self._ordered, self._begins, matrix, places, sums)
        rows = zip(places.tolist(), sums.tolist(), strict=True)
        return [Reasons(self._reasons(named, numbers), numbers[-1]) for named, numbers in rows]

    def _reasons(self, named: list[list[int]], numbers: list[float]) -> tuple[Reason, ...]:
        found = []
        for k, (group, *places) in enumerate(named):
            if group != _NONE:
                shown = [place for place in places if place != _NONE] if _NONE in places else places
                total, rest = numbers[2 * k], numbers[2 * k + 1]
                found.append(Reason(self._meanings[group], total, tuple(shown), rest, self._members[group]))
        return tuple(found)


@compiled
def _find_strongest(ordered: Places, begins: Places, rows: Floats, places: Places, sums: Floats) -> None:
    """For each row of float64[N, F] its K strongest groups of features, −1 where there are no more.

    ordered, begins: the features of group g are ordered[begins[g]:begins[g + 1]]. Writes to places[N, K, 1 + M] each
    group and the features that move it furthest in its direction, −1 for none, to sums[N, 2 K + 1] each group's sum and
    that of its features which are not named, and at the end the sum of all other groups. Of equals the first.
    """
    count = len(begins) - 1
    totals, taken = np.empty(count), np.empty(len(ordered), np.bool_)
    for n in range(len(rows)):
        for g in range(count):
            totals[g] = 0.0
            for i in range(begins[g], begins[g + 1]):
                totals[g] += rows[n, ordered[i]]
        for k in range(places.shape[1]):
            best, size = _NONE, 0.0
            for g in range(count):
                if abs(totals[g]) > size:
                    best, size = g, abs(totals[g])
            places[n, k, 0] = best
            if best == _NONE:
                continue
            sums[n, 2 * k] = totals[best]
            sign = 1.0 if totals[best] > 0.0 else -1.0
            totals[best] = 0.0
            first, stop = begins[best], begins[best + 1]
            taken[first:stop] = False
            for m in range(1, places.shape[2]):
                chosen = _NONE
                for i in range(first, stop):
                    share = sign * rows[n, ordered[i]]
                    if not taken[i] and (chosen == _NONE or share > sign * rows[n, ordered[chosen]]):
                        chosen = i
                places[n, k, m] = _NONE
                if chosen != _NONE:
                    taken[chosen] = True
                    if rows[n, ordered[chosen]] != 0.0:
                        places[n, k, m] = ordered[chosen]
            sums[n, 2 * k + 1] = 0.0
            for i in range(first, stop):
                if not taken[i]:
                    sums[n, 2 * k + 1] += rows[n, ordered[i]]
        sums[n, -1] = 0.0
        for g in range(count):
            sums[n, -1] += totals[g]
