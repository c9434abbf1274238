"""What the values of features look like in both versions, from what each version's process wrote about the sample.

Drift is the population stability index, PSI = Σ (new − old) · ln(new / old) over parts of the values: between quantiles
of both versions' numbers, or the most frequent of all else. Source: Siddiqi, Credit Risk Scorecards (2006), chapter 8.
By custom, below 0.1 nothing has changed, from 0.25 on it is another population.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from actor_risk.changes.described import FeatureDefinition, Problem, RepoDefinition, ViewDefinition
from actor_risk.changes.evaluated import (
    AS_OF,
    ASKED,
    EVENT_ID,
    HASHED,
    LABEL,
    TOLD_FILE,
    TOPIC,
    VALUES_FILE,
    Evaluated,
)
from actor_risk.changes.values import QUANTILES, FeatureValues, Profile, SampleValues
from materialize.personal import PII, gives_values, tagged

PARTS = 10
SMOOTHING = 0.5
"""Is added to the count of each part: an empty one would make the index infinite."""
FREQUENT_MAX = 20
"""Of values that are no numbers, so many are parts of their own, the rest are one."""
LABELLED_MIN = 30
"""With fewer rows of either kind of label, nothing is said of how a feature goes with it."""

Floats = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


def compare_values(
    old_folder: Path,
    new_folder: Path,
    old: RepoDefinition,
    new: RepoDefinition,
    renames: Mapping[str, str] | None = None,
) -> SampleValues:
    """The values of every feature in the old version and in the new one.

    renames: new name → old name of features (`view:feature`), or of views, that are the same under another name. A
    version whose process wrote nothing has no profiles.
    """
    before, after = _Version.read(old_folder, old), _Version.read(new_folder, new)
    told = after.told or before.told
    if told is None:
        return SampleValues(sample="", events=0, queries=0)
    named = _Renames(dict(renames or {}))
    features = [_both(before, after, named.old(name), name) for name in after.names()]
    gone = set(before.names()) - {named.old(name) for name in after.names()}
    features += [_both(before, after, name, name) for name in before.names() if name in gone]
    return SampleValues(
        sample=told.sample,
        events=told.events,
        queries=told.queries,
        label=told.label,
        features=tuple(features),
        leaks=dict(after.told.leaks) if after.told is not None else {},
    )


def problems_on_sample(folder: Path) -> tuple[Problem, ...]:
    """What failed on the sample in the version that wrote into the folder."""
    told = _told(folder)
    return () if told is None else told.problems


def untold_values(folder: Path) -> tuple[str, ...]:
    """The views whose values could not be computed, and why."""
    told = _told(folder)
    return () if told is None else tuple(f"values of {view}: {why}" for view, why in sorted(told.untold.items()))


def psi(old: Sequence[int], new: Sequence[int]) -> float:
    """The population stability index of two series of counts of the same parts: 0 for equal shares, never negative."""
    before, after = _shares(np.asarray(old, np.float64)), _shares(np.asarray(new, np.float64))
    return float(np.sum((after - before) * np.log(after / before)))


def auc(values: Floats, labels: Floats) -> float:
    """How well values alone tell label 1 from 0, 0.5 to 1, whichever way they point; equal values count half."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    positive = labels > 0
    ones, zeros = int(positive.sum()), int((~positive).sum())
    area = (float(ranks[positive].sum()) - ones * (ones + 1) / 2) / (ones * zeros)
    return max(area, 1 - area)


@dataclass(frozen=True)
class _Renames:
    names: dict[str, str]

    def old(self, feature: str) -> str:
        """What a feature of the new version was called."""
        if feature in self.names:
            return self.names[feature]
        view, _, name = feature.partition(":")
        return f"{self.names.get(view, view)}:{name}"


@dataclass(frozen=True)
class _Column:
    """One feature's values in one version. values: float64[n], or uint64[n] hashes. valid, asked: bool[n]."""

    values: np.ndarray[Any, Any]
    valid: Mask
    asked: Mask
    is_hashed: bool

    def of(self, rows: Mask) -> np.ndarray[Any, Any]:
        """The values of some rows that are there."""
        found: np.ndarray[Any, Any] = self.values[rows & self.valid]
        return found


@dataclass(frozen=True)
class _Version:
    """What one version's process wrote, and what it defines."""

    told: Evaluated | None
    table: pa.Table | None
    definition: RepoDefinition

    @staticmethod
    def read(folder: Path, definition: RepoDefinition) -> _Version:
        told, path = _told(folder), folder / VALUES_FILE
        return _Version(told, pq.read_table(path) if told is not None and path.exists() else None, definition)

    def names(self) -> list[str]:
        """The features that have values, by the definition's order where it has them."""
        found = [] if self.table is None else self.table.column_names
        own = {TOPIC, EVENT_ID, AS_OF, LABEL}
        there = [name for name in found if name not in own and not name.startswith(ASKED)]
        order = [f"{view.name}:{feature.name}" for view in self.definition.views for feature in view.features]
        places = {name: place for place, name in enumerate(order)}
        return sorted(there, key=lambda name: places.get(name, len(places)))

    def rows(self) -> dict[tuple[Any, ...], int]:
        """What each row asks for → its position."""
        if self.table is None:
            return {}
        parts = [self.table.column(name).to_pylist() for name in (TOPIC, EVENT_ID, AS_OF)]
        return {row: place for place, row in enumerate(zip(*parts, strict=True))}

    def labels(self) -> Floats:
        """The label of each row, NaN for none."""
        assert self.table is not None
        found: Floats = self.table.column(LABEL).to_numpy()
        return found

    def column(self, name: str) -> _Column | None:
        """A feature's values, None without any."""
        if self.table is None or name not in self.table.column_names:
            return None
        field, column = self.table.schema.field(name), self.table.column(name).combine_chunks()
        is_hashed = HASHED in (field.metadata or {})
        asked = ASKED + name.partition(":")[0]
        whole = np.ones(len(column), dtype=bool)
        return _Column(
            values=column.fill_null(0).to_numpy(zero_copy_only=False),
            valid=column.is_valid().to_numpy(zero_copy_only=False),
            asked=self.table.column(asked).to_numpy() if asked in self.table.column_names else whole,
            is_hashed=is_hashed,
        )

    def is_personal(self, name: str) -> bool:
        """Whether nothing of the feature's values may be kept."""
        view_name, _, feature_name = name.partition(":")
        view = self.definition.view(view_name)
        feature = None if view is None else view.feature(feature_name)
        return view is not None and feature is not None and _is_personal(view, feature)


def _told(folder: Path) -> Evaluated | None:
    path = folder / TOLD_FILE
    return msgspec.json.decode(path.read_bytes(), type=Evaluated) if path.exists() else None


def _is_personal(view: ViewDefinition, feature: FeatureDefinition) -> bool:
    """Tagged so itself, or the column that the view's tag names, as it is or aggregated by more than counting."""
    if PII in feature.tags or feature.kind in ("STRING", "BYTES", "STRING_LIST", "BYTES_LIST"):
        return True
    named, window = tagged(view.tags), feature.window
    return feature.name in named or (window is not None and window.column in named and gives_values(window.function))


def _both(before: _Version, after: _Version, old_name: str, name: str) -> FeatureValues:
    """Both profiles of one feature, over the rows that either version asks for."""
    old, new = before.column(old_name), after.column(name)
    masked = (
        before.is_personal(old_name)
        or after.is_personal(name)
        or any(c is not None and c.is_hashed for c in (old, new))
    )
    same_rows = old is not None and new is not None and _same_queries(before, after)
    asked = old.asked | new.asked if old is not None and new is not None and same_rows else None
    rows = [None if c is None else (c.asked if asked is None else asked) for c in (old, new)]
    parts = [c.of(r) for c, r in zip((old, new), rows, strict=True) if c is not None and r is not None]
    edges = _edges(parts) if not masked else np.empty(0)
    profiles = [
        None if c is None or r is None else _profile(c, r, edges, version.labels(), masked)
        for c, r, version in zip((old, new), rows, (before, after), strict=True)
    ]
    drift = changed = None
    if len(parts) == 2 and all(len(part) for part in parts):
        drift = psi(*_counts(parts[0], parts[1], old is not None and old.is_hashed))
    if old is not None and new is not None:
        changed = _changed(old, new, before, after, same_rows=same_rows)
    return FeatureValues(feature=name, old=profiles[0], new=profiles[1], drift=drift, changed=changed or 0)


def _profile(column: _Column, rows: Mask, edges: Floats, labels: Floats, masked: bool) -> Profile:
    found = column.of(rows)
    nulls, distinct = int(rows.sum()) - len(found), len(np.unique(found))
    finite = found[np.isfinite(found)] if not column.is_hashed else np.empty(0)
    infinite = 0 if column.is_hashed else len(found) - len(finite)
    correlation, area = _with_label(column, rows, labels)
    if masked or not len(finite):
        return Profile(
            rows=int(rows.sum()),
            nulls=nulls,
            distinct=distinct,
            infinite=infinite,
            label_correlation=correlation,
            label_auc=area,
            masked=masked,
        )
    return Profile(
        rows=int(rows.sum()),
        nulls=nulls,
        distinct=distinct,
        infinite=infinite,
        low=float(finite.min()),
        high=float(finite.max()),
        mean=float(finite.mean()),
        quantiles=tuple(np.quantile(finite, QUANTILES).tolist()),
        edges=tuple(edges.tolist()),
        histogram=tuple(_histogram(finite, edges).tolist()),
        label_correlation=correlation,
        label_auc=area,
    )


def _with_label(column: _Column, rows: Mask, labels: Floats) -> tuple[float | None, float | None]:
    known = rows & column.valid & np.isfinite(labels)
    if column.is_hashed or not known.any():
        return None, None
    values, truth = column.values[known].astype(np.float64), labels[known]
    finite = np.isfinite(values)
    values, truth = values[finite], (truth[finite] > 0).astype(np.float64)
    if min(truth.sum(), (1 - truth).sum()) < LABELLED_MIN:
        return None, None
    if values.min() == values.max():
        return None, 0.5
    return float(np.corrcoef(values, truth)[0, 1]), auc(values, truth)


def _edges(parts: Sequence[np.ndarray[Any, Any]]) -> Floats:
    """Edges between which both versions' values lie, at quantiles of both together; each version counts the same."""
    finite = [part[np.isfinite(part)] for part in parts]
    finite = [part for part in finite if len(part)]
    if not finite:
        return np.empty(0)
    shares = np.linspace(0, 1, PARTS + 1)
    quantiles = np.concatenate([np.quantile(part, shares) for part in finite])
    edges = np.unique(np.quantile(quantiles, shares))
    return edges if len(edges) > 1 else np.array([edges[0], np.nextafter(edges[0], np.inf)])


def _histogram(values: np.ndarray[Any, Any], edges: Floats) -> np.ndarray[Any, Any]:
    counts: np.ndarray[Any, Any] = np.histogram(values, edges)[0]
    return counts


def _counts(old: np.ndarray[Any, Any], new: np.ndarray[Any, Any], is_hashed: bool) -> tuple[list[int], list[int]]:
    """How many values of each version are in each part."""
    if is_hashed:
        return _frequent(old, new)
    old, new = old[np.isfinite(old)], new[np.isfinite(new)]
    edges = _drift_edges(old, new)
    return (
        np.bincount(np.searchsorted(edges, old), minlength=len(edges) + 1).tolist(),
        np.bincount(np.searchsorted(edges, new), minlength=len(edges) + 1).tolist(),
    )


def _drift_edges(old: Floats, new: Floats) -> Floats:
    """The tenths of both versions: values of either that lie close together must not all be in one part."""
    edges = [np.quantile(part, np.linspace(0, 1, PARTS + 1)[1:-1]) for part in (old, new) if len(part)]
    return np.unique(np.concatenate(edges)) if edges else np.empty(0)


def _frequent(old: np.ndarray[Any, Any], new: np.ndarray[Any, Any]) -> tuple[list[int], list[int]]:
    words, counts = np.unique(np.concatenate([old, new]), return_counts=True)
    chosen = words[np.argsort(-counts, kind="stable")[:FREQUENT_MAX]]
    counted = [[int((part == word).sum()) for word in chosen] for part in (old, new)]
    rest = [len(part) - sum(counts) for part, counts in zip((old, new), counted, strict=True)]
    if any(rest):
        counted = [[*counts, more] for counts, more in zip(counted, rest, strict=True)]
    return counted[0], counted[1]


def _shares(counts: Floats) -> Floats:
    shares: Floats = (counts + SMOOTHING) / (counts.sum() + SMOOTHING * len(counts))
    return shares


def _same_queries(before: _Version, after: _Version) -> bool:
    names = (TOPIC, EVENT_ID, AS_OF)
    if before.table is None or after.table is None or before.table.num_rows != after.table.num_rows:
        return False
    return all(before.table.column(name).equals(after.table.column(name)) for name in names)


def _changed(old: _Column, new: _Column, before: _Version, after: _Version, *, same_rows: bool) -> int:
    """How many of the queries that both have got another value."""
    if same_rows:
        places = np.arange(len(old.values))
        theirs = places
    else:
        own = before.rows()
        pairs = [(place, own[row]) for row, place in after.rows().items() if row in own]
        theirs, places = np.array(pairs, np.int64).reshape(-1, 2).T[::-1]
    rows = old.asked[theirs] | new.asked[places]
    one, other = old.values[theirs], new.values[places]
    there, here = old.valid[theirs], new.valid[places]
    differs = (there != here) | (there & here & (one != other))
    return int(np.count_nonzero(differs & rows))
