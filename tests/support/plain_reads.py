"""What reading gives, said plainly: one row decoded after the other, Python values, no compiled code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from materialize.definitions import OnDemandView, StreamView
from materialize.kernel import read_windows
from materialize.online import (
    FeatureMatrix,
    FeatureStatus,
    FieldValue,
    ReadPlan,
    RowRefusedError,
    assemble,
    decode_batch_row,
    decode_stream_row,
    lookup,
)
from materialize.online._plan import RowRead

NOTHING = -1


@dataclass(frozen=True)
class PlainValue:
    """A feature's value (None for none), status and age."""

    value: FieldValue
    status: FeatureStatus
    age_ms: int


def read_one(
    plan: ReadPlan,
    rows: Sequence[bytes | None],
    entities: Mapping[str, object],
    as_of_ms: int,
    request: Mapping[str, object] | None = None,
) -> FeatureMatrix:
    """The features of one set of entities from the rows of `plan.rows`, by our fast path."""
    return assemble(plan, lookup(plan, [entities]), rows, [entities], [as_of_ms], [request or {}])


def plain_read(
    plan: ReadPlan,
    rows: Sequence[bytes | None],
    entities: Mapping[str, object],
    as_of_ms: int,
    request: Mapping[str, object],
) -> list[PlainValue]:
    """The same, plainly."""
    by_row = [plain_row(row, data, as_of_ms) for row, data in zip(plan.rows, rows, strict=True)]
    slots = [by_row[row][place] for row, place in plan.reader.origins]
    out = [PlainValue(None, FeatureStatus.NULL_VALUE, NOTHING)] * len(plan.features)
    for slot, position in plan.copies:
        out[position] = slots[slot]
    for run in plan.on_demand:
        stored = {name: slots[slot] for name, slot in run.inputs}
        given = {**entities, **{name: found.value for name, found in stored.items()}}
        given.update((field.name, request.get(field.name)) for field in run.view.requests)
        ages = [found.age_ms for found in stored.values() if found.age_ms != NOTHING]
        results = _call(run.view, given)
        for name, position in run.outputs:
            value = results.get(name)
            status = FeatureStatus.NULL_VALUE if value is None else FeatureStatus.PRESENT
            out[position] = PlainValue(value, status, min(ages, default=NOTHING))
    return out


def plain_row(row: RowRead, data: bytes | None, as_of_ms: int) -> list[PlainValue]:
    """Every field of one row."""
    view = row.view
    values: Sequence[FieldValue]
    try:
        if data is None:
            raise RowRefusedError("no_row", "there is none")
        if isinstance(view, StreamView):
            windows = read_windows(view.spec, decode_stream_row(view.spec, data).state, as_of_ms)
            if not windows.found:
                raise RowRefusedError("empty", "no window covers an event")
            numbers = [None if np.isnan(value) else float(value) for value in windows.values]
            whole = [field.kind == "INT64" for field in view.fields]
            values = [int(v) if w and v is not None else v for v, w in zip(numbers, whole, strict=True)]
            age_ms = as_of_ms - windows.newest_ms
        else:
            stored = decode_batch_row(view, data)
            values = [None if value != value else value for value in stored.values]
            age_ms = max(as_of_ms - stored.event_time_ms, 0)
    except RowRefusedError:
        return [PlainValue(None, FeatureStatus.NOT_FOUND, NOTHING)] * len(view.fields)
    if view.ttl_ms and age_ms > view.ttl_ms:
        return [PlainValue(None, FeatureStatus.OUTSIDE_MAX_AGE, age_ms)] * len(view.fields)
    return [
        PlainValue(value, FeatureStatus.NULL_VALUE if value is None else FeatureStatus.PRESENT, age_ms)
        for value in values
    ]


def _call(view: OnDemandView, given: dict[str, object]) -> dict[str, FieldValue]:
    try:
        if view.singleton:
            return view.function(given)
        return {name: column[0] for name, column in view.function({k: [v] for k, v in given.items()}).items()}
    except Exception:
        return {}
