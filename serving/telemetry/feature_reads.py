"""What was read for a model: the statuses of each feature, and how old the newest value of each view is.

A round only puts its arrays aside; they are looked at together, some hundred rows at once or when somebody scrapes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from materialize.online import FeatureMatrix, FeatureStatus
from serving.telemetry.counting import Buckets

ASIDE_MAX = 256
"""Rows that may be put aside: to look at so many takes about as long as to score a few."""
FEATURES_MAX = 300
"""A model with more features than that is counted by view: each series costs Prometheus memory."""
AGE_BOUNDS_S = (1, 5, 15, 30, 60, 300, 900, 3_600, 21_600, 86_400, 259_200, 604_800, 2_592_000)

_MS_PER_S = 1000
_NEVER = np.uint64(np.iinfo(np.int64).max)
Places = NDArray[np.int64]


class FeatureReads:
    """For one version of a model, whose features are `refs`, `view:feature` each."""

    def __init__(self, refs: Sequence[str]) -> None:
        self._refs = [*refs] if len(refs) <= FEATURES_MAX else [f"{view_of(ref)}:*" for ref in refs]
        views = [view_of(ref) for ref in refs]
        self._views, self._starts = np.unique(sorted(views), return_index=True)
        self._by_view = np.argsort(np.array(views), kind="stable")
        self._statuses = np.zeros((len(FeatureStatus), len(refs)), np.int64)
        self._ages = [Buckets(AGE_BOUNDS_S) for _ in self._views]
        self._columns: Places = np.arange(len(refs))
        self._aside: list[FeatureMatrix] = []
        self._rows_aside = 0

    def add(self, matrix: FeatureMatrix, columns: Places) -> None:
        """Take what was read; the model's features are these `columns` of it. It must not change from now on."""
        if columns is not self._columns:  # another plan of the same features
            self._look()
            self._columns = columns
        self._aside.append(matrix)
        self._rows_aside += len(matrix.values)
        if self._rows_aside >= ASIDE_MAX:
            self._look()

    def statuses(self) -> dict[tuple[str, str], int]:
        """(feature, status) → how many values, where there are any."""
        self._look()
        found: dict[tuple[str, str], int] = {}
        for status, counts in zip(FeatureStatus, self._statuses.tolist(), strict=True):
            for ref, count in zip(self._refs, counts, strict=True):
                if count:
                    key = (ref, status.name.lower())
                    found[key] = found.get(key, 0) + count
        return found

    def ages(self) -> dict[str, Buckets]:
        """View → the ages in seconds of the newest value of each answer, of those that have one."""
        self._look()
        return dict(zip(self._views.tolist(), self._ages, strict=True))

    def _look(self) -> None:
        if not self._aside:
            return
        aside, self._aside, self._rows_aside = self._aside, [], 0
        statuses = np.concatenate([matrix.statuses for matrix in aside])[:, self._columns]
        for counts, status in zip(self._statuses, FeatureStatus, strict=True):
            counts += (statuses == status).sum(axis=0)
        ages_ms = np.concatenate([matrix.ages_ms for matrix in aside])[:, self._columns[self._by_view]]
        # −1, no age, is more than every age when it is read without a sign.
        newest_ms = np.minimum.reduceat(ages_ms.view(np.uint64), self._starts, axis=1)
        for buckets, column in zip(self._ages, newest_ms.T, strict=True):
            ages_s = column[column <= _NEVER] / _MS_PER_S
            parts = np.bincount(np.searchsorted(AGE_BOUNDS_S, ages_s), minlength=len(buckets.counts))
            buckets.counts = [a + b for a, b in zip(buckets.counts, parts.tolist(), strict=True)]
            buckets.total += float(ages_s.sum())


def view_of(ref: str) -> str:
    """`view:feature` → `view`."""
    return ref.partition(":")[0]
