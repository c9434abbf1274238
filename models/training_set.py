"""Labelled rows as of their own time, and their split into three spans of time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models._arrays import Bools, Floats
from models.errors import TrainingError
from models.manifest import Feature, ReasonText, TrainingData, reason_code


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Rows of features with labels, each as of its own time.

    refs         F feature references `view:feature`, in the order of the columns
    matrix       float64[n, F], NaN for a missing value
    labels       int8[n] of 0 and 1
    times_ms     int64[n], as-of time in ms UTC
    label        what label 1 means, for people
    descriptions F texts, or none
    missing      F replacements of missing values (None: the model sees NaN), or none
    families     F names of reasons ("": the feature is one by itself), or none; `reasons` are their texts
    groups       texts [n] by name, which a report is cut by: `os`, `advertiser_id`; the model does not see them
    share        of all rows that could have been labelled, the share that is here: a capacity is counted with all
    """

    refs: tuple[str, ...]
    matrix: Floats
    labels: NDArray[np.int8]
    times_ms: NDArray[np.int64]
    label: str = ""
    descriptions: tuple[str, ...] = ()
    missing: tuple[float | None, ...] = ()
    families: tuple[str, ...] = ()
    reasons: tuple[ReasonText, ...] = ()
    groups: Mapping[str, NDArray[np.object_]] = field(default_factory=dict)
    share: float = 1.0

    def __post_init__(self) -> None:
        """Raises TrainingError for shapes that do not fit together and labels other than 0 and 1."""
        rows, columns = len(self.labels), len(self.refs)
        if self.matrix.shape != (rows, columns) or self.times_ms.shape != (rows,) or self.labels.ndim != 1:
            raise TrainingError(
                f"{columns} refs, matrix {self.matrix.shape}, labels {self.labels.shape} and times "
                f"{self.times_ms.shape} do not fit: give one row, label and time each, one column for each ref"
            )
        if any(extra and len(extra) != columns for extra in (self.descriptions, self.missing, self.families)):
            raise TrainingError(f"give descriptions, replacements and families for all {columns} features, or none")
        if not np.isin(self.labels, (0, 1)).all():
            raise TrainingError("labels must be 0 or 1: drop rows whose outcome is not known yet")
        if any(values.shape != (rows,) for values in self.groups.values()) or not 0 < self.share <= 1:
            raise TrainingError("give each group one text for each row, and a share above 0 and at most 1")

    def features(self) -> tuple[Feature, ...]:
        """The columns as the manifest names them; reason codes come from the refs."""
        descriptions = self.descriptions or ("",) * len(self.refs)
        missing = self.missing or (None,) * len(self.refs)
        families = self.families or ("",) * len(self.refs)
        return tuple(
            Feature(ref=ref, code=reason_code(ref), missing=fill, description=text, family=family)
            for ref, fill, text, family in zip(self.refs, missing, descriptions, families, strict=True)
        )

    def filled(self) -> Floats:
        """The matrix float64[n, F] with the missing-value policy applied: what the model reads."""
        fill = np.array([np.nan if value is None else value for value in self.missing or (None,) * len(self.refs)])
        return np.ascontiguousarray(np.where(np.isnan(self.matrix), fill, self.matrix), dtype=np.float64)

    def fingerprint(self) -> str:
        """SHA-256 over refs, matrix, labels and times: equal for equal rows in equal order."""
        digest = hashlib.sha256("\n".join(self.refs).encode())
        for part, kind in ((self.matrix, np.float64), (self.labels, np.int8), (self.times_ms, np.int64)):
            digest.update(np.ascontiguousarray(part, dtype=kind).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Spans:
    """Disjoint parts of the rows, bool[n] each: `fit` is earlier than `tune`, which is earlier than `test`."""

    fit: Bools
    tune: Bools
    test: Bools
    data: TrainingData


def split_by_time(rows: TrainingSet, *, tune_share: float, test_share: float) -> Spans:
    """Cuts the span of time (not the rows) into fit, tune and test, in this order.

    Raises TrainingError when a part lacks one of the classes.
    """
    if not len(rows.labels):
        raise TrainingError("there are no rows: check the time range and the source of the labels")
    start, end = int(rows.times_ms.min()), int(rows.times_ms.max())
    test_ms = end - int((end - start) * test_share)
    tune_ms = test_ms - int((end - start) * tune_share)
    test = rows.times_ms >= test_ms
    tune = (rows.times_ms >= tune_ms) & ~test
    for name, part in (("fit", ~(tune | test)), ("tune", tune), ("test", test)):
        _check_classes(name, rows.labels[part], start, tune_ms, test_ms, end)
    data = TrainingData(
        fingerprint=rows.fingerprint(),
        rows=len(rows.labels),
        positives=int(rows.labels.sum()),
        start_ms=start,
        tune_ms=tune_ms,
        test_ms=test_ms,
        end_ms=end,
    )
    return Spans(~(tune | test), tune, test, data)


def _check_classes(name: str, labels: NDArray[np.int8], *bounds_ms: int) -> None:
    positives = int(labels.sum())
    if 0 < positives < labels.size:
        return
    raise TrainingError(
        f"the {name} span has {labels.size} rows, {positives} of them positive, and both classes are needed "
        f"(start, tune, test, end in ms UTC: {bounds_ms}): take a longer time range or change the shares of the spans"
    )
