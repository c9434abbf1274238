"""From one share for each feature to the few reasons that a person reads: features of one family are one reason.

base value + attributions of the reasons + the rest = margin, as with single features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models._arrays import Floats
from models.manifest import UNNAMED_ACTOR_TEXT, Feature, ReasonText

Places = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a reason says. `family` is the feature's reference where a feature is a reason by itself."""

    family: str
    code: str
    analyst: str
    actor: str


@dataclass(frozen=True, slots=True)
class Reason:
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


@dataclass(frozen=True, slots=True)
class Reasons:
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
        self._group_of: Places = np.array([groups[meaning] for meaning in meanings], np.intp)
        self._members = tuple(np.flatnonzero(self._group_of == group) for group in range(len(self._meanings)))

    def strongest(self, attributions: Floats, count: int, features_max: int) -> Reasons:
        """The `count` reasons with the largest sums of float64[F] by absolute size; sums of zero are no reasons.

        Each names at most `features_max` features.
        """
        sums = np.bincount(self._group_of, weights=attributions, minlength=len(self._meanings))
        sizes = np.abs(sums)
        kept = min(max(count, 0), sums.size)
        top = np.argpartition(sizes, -kept)[-kept:] if 0 < kept < sums.size else np.arange(kept)
        top = top[sizes[top] > 0.0]
        top = top[np.lexsort((top, -sizes[top]))]
        found = tuple(self._reason(group, float(sums[group]), attributions, features_max) for group in top.tolist())
        sums[top] = 0.0
        return Reasons(found, float(sums.sum()))

    def _reason(self, group: int, attribution: float, attributions: Floats, features_max: int) -> Reason:
        members = self._members[group]
        towards = attributions[members] if attribution > 0.0 else -attributions[members]
        ordered = members[np.argsort(-towards, kind="stable")]
        places = tuple(place for place in ordered[:features_max].tolist() if attributions[place] != 0.0)
        rest = float(attributions[ordered[features_max:]].sum())
        return Reason(self._meanings[group], attribution, places, rest, members)
