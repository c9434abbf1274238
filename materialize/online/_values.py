"""What a value read is worth, and what a read met on its way."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from materialize.online._batch_rows import FieldValue

NO_AGE = -1
FLOAT_KINDS = ("DOUBLE", "FLOAT")
INTEGER_KINDS = ("INT64", "INT32", "UNIX_TIMESTAMP")
NUMBER_KINDS = (*FLOAT_KINDS, *INTEGER_KINDS, "BOOL")
_ALL_READ: Mapping[int, int] = {}


class FeatureStatus(IntEnum):
    """What a value read is worth: Feast's `FieldStatus`, by its numbers."""

    PRESENT = 1
    NULL_VALUE = 2
    NOT_FOUND = 3
    OUTSIDE_MAX_AGE = 4


@dataclass
class ReadCounts:
    """What a read met on its way: rows that there were, rows refused by reason, functions and events that failed,
    reads further into the past than a row can answer exactly."""

    rows_found: int = 0
    rows_refused: dict[str, int] = field(default_factory=dict)
    on_demand_failed: int = 0
    event_failed: int = 0
    inexact: int = 0

    def refuse(self, reason: str) -> None:
        """Count a row that was refused."""
        self.rows_refused[reason] = self.rows_refused.get(reason, 0) + 1


class Met:
    """What was met on the way to each of N entities, of most of whom there is little to tell.

    rows_found: int64[N]. The rest: an entity's position → how many, where there are any; `refused` by reason. `unread`:
    rows that a shard of the store did not give, which count as not found.
    """

    def __init__(self, rows_found: NDArray[np.int64]) -> None:
        self.rows_found = rows_found
        self.refused: dict[int, Counter[str]] = {}
        self.on_demand_failed: defaultdict[int, int] = defaultdict(int)
        self.event_failed: defaultdict[int, int] = defaultdict(int)
        self.inexact: defaultdict[int, int] = defaultdict(int)
        self.unread: Mapping[int, int] = _ALL_READ

    def of(self, entity: int) -> ReadCounts:
        """What was met on the way to one of them."""
        return ReadCounts(
            int(self.rows_found[entity]),
            dict(self.refused.get(entity, {})),
            self.on_demand_failed.get(entity, 0),
            self.event_failed.get(entity, 0),
            self.inexact.get(entity, 0),
        )


def plain_column(values: NDArray[np.float64], statuses: NDArray[np.uint8], kind: str) -> list[FieldValue]:
    """Numbers as Python's own, of the feature's kind, None where there is none."""
    present = statuses == FeatureStatus.PRESENT
    if present.all():
        return _numbers(values, kind)
    numbers = iter(_numbers(values[present], kind))
    return [next(numbers) if there else None for there in present.tolist()]


def object_column(values: Sequence[FieldValue]) -> NDArray[np.object_]:
    """The values as they are, object[n]: numpy would look into lists."""
    column = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        column[i] = value
    return column


def statuses_of(values: Sequence[FieldValue]) -> NDArray[np.uint8]:
    """uint8[n]: NULL_VALUE for None, PRESENT for the rest."""
    missing = [value is None for value in values]
    return np.where(missing, FeatureStatus.NULL_VALUE, FeatureStatus.PRESENT).astype(np.uint8)


def _numbers(values: NDArray[np.float64], kind: str) -> list[Any]:
    if kind in INTEGER_KINDS:
        return [int(value) for value in values.tolist()]
    return list((values == 1).tolist() if kind == "BOOL" else values.tolist())
