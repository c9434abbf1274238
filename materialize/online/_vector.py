"""From the rows of a request to its feature vector: decode, merge, run the on-demand functions. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from materialize.definitions import DefinitionError, StreamView
from materialize.events import Columns
from materialize.kernel import EventBlock, KernelError
from materialize.online._batch_rows import FieldValue
from materialize.online._plan import OnDemandRun, ReadPlan, RowRead
from materialize.online._view_reader import NO_AGE, FeatureStatus, ReadCounts


@dataclass(frozen=True)
class FeatureVector:
    """The features of a service, in its order.

    values: float64[F], NaN unless PRESENT (and for a feature that is no number). objects: the values as they are.
    statuses: uint8[F], of FeatureStatus. ages_ms: int64[F], as-of time minus newest event; −1 where there is none.
    """

    values: np.ndarray[Any, np.dtype[np.float64]]
    objects: tuple[FieldValue, ...]
    statuses: np.ndarray[Any, np.dtype[np.uint8]]
    ages_ms: np.ndarray[Any, np.dtype[np.int64]]
    counts: ReadCounts


def assemble(
    plan: ReadPlan,
    rows: Sequence[bytes | None],
    entities: Mapping[str, object],
    as_of_ms: int,
    event: tuple[str, Columns] | None = None,
    request: Mapping[str, object] | None = None,
) -> FeatureVector:
    """The feature vector from the rows of `plan.rows`, with the event (topic, columns of one event) merged in."""
    counts = ReadCounts()
    values: list[FieldValue] = [None] * plan.input_count
    statuses = [FeatureStatus.NOT_FOUND] * plan.input_count
    ages = [NO_AGE] * plan.input_count
    for row, data in zip(plan.rows, rows, strict=True):
        extra = _extra(row, entities, event, counts)
        counts.rows_found += data is not None
        read = row.reader.read(data, as_of_ms, counts, extra)
        for slot, value, status in zip(row.slots, read.values, read.statuses, strict=True):
            values[slot], statuses[slot], ages[slot] = value, status, read.age_ms
    out = _Outputs(len(plan.features))
    for slot, position in plan.copies:
        out.set(position, values[slot], statuses[slot], ages[slot])
    for run in plan.on_demand:
        _run_on_demand(run, values, ages, entities, request or {}, out, counts)
    return out.vector(counts)


class _Outputs:
    def __init__(self, length: int) -> None:
        self._values: list[FieldValue] = [None] * length
        self._statuses = [FeatureStatus.NULL_VALUE] * length
        self._ages = [NO_AGE] * length

    def set(self, position: int, value: FieldValue, status: FeatureStatus, age_ms: int) -> None:
        self._values[position], self._statuses[position], self._ages[position] = value, status, age_ms

    def vector(self, counts: ReadCounts) -> FeatureVector:
        numbers = [float(v) if isinstance(v, (int, float, np.number)) else np.nan for v in self._values]
        return FeatureVector(
            np.array(numbers, dtype=np.float64),
            tuple(self._values),
            np.array(self._statuses, dtype=np.uint8),
            np.array(self._ages, dtype=np.int64),
            counts,
        )


def _extra(
    row: RowRead, entities: Mapping[str, object], event: tuple[str, Columns] | None, counts: ReadCounts
) -> EventBlock | None:
    """The scored event as this row's view sees it, if it is an event of this row's entity."""
    if event is None or not isinstance(row.view, StreamView) or row.view.topic != event[0]:
        return None
    try:
        seen = row.view.events(event[1])
    except (DefinitionError, KernelError):
        counts.event_failed += 1
        return None
    wanted = [entities[name] for name in row.key_names]
    if not len(seen.block) or [key[0] for key in seen.keys] != wanted:
        return None
    return seen.block


def _run_on_demand(
    run: OnDemandRun,
    values: Sequence[FieldValue],
    ages: Sequence[int],
    entities: Mapping[str, object],
    request: Mapping[str, object],
    out: _Outputs,
    counts: ReadCounts,
) -> None:
    given: dict[str, Any] = dict(entities)
    given.update((name, values[slot]) for name, slot in run.inputs)
    given.update((field.name, request.get(field.name)) for field in run.view.requests)
    try:
        if run.view.singleton:
            result = run.view.function(given)
        else:
            result = {n: v[0] for n, v in run.view.function({n: [v] for n, v in given.items()}).items()}
        result = {name: _plain(result.get(name), name in run.view.words) for name, _ in run.outputs}
    except Exception:  # the function is the feature author's code, and may fail in any way on odd values
        counts.on_demand_failed += 1
        result = {}
    age_ms = min((ages[slot] for _, slot in run.inputs if ages[slot] != NO_AGE), default=NO_AGE)
    for name, position in run.outputs:
        value = result.get(name)
        status = FeatureStatus.NULL_VALUE if value is None else FeatureStatus.PRESENT
        out.set(position, value, status, age_ms)


def _plain(value: Any, is_word: bool) -> FieldValue:
    """A function's result as Python's own value, None for null. Raises TypeError for one that its field cannot have."""
    if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0:
        value = value.item()
    if value is None or value != value:
        return None
    if not isinstance(value, (str, bytes) if is_word else (int, float)):
        raise TypeError(f"a {type(value).__name__} is no value of this feature")
    return value
