"""Many entities at once: which rows to read, and from the rows to a matrix. No I/O.

A row that several entities share is read and decoded once. An on-demand function over lists runs once over all rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from materialize.online._batch_rows import FieldValue
from materialize.online._plan import OnDemandRun, ReadPlan, RowRead
from materialize.online._vector import FeatureVector, _plain
from materialize.online._view_columns import (
    EXACT_MAX,
    INTEGER_KINDS,
    ColumnReader,
    Floats,
    Times,
    ViewBlock,
    column_reader,
    object_column,
    statuses_of,
)
from materialize.online._view_reader import NO_AGE, FeatureStatus, ReadCounts

Places = NDArray[np.intp]
_NO_AGE_IS_LAST = np.iinfo(np.int64).max


@dataclass(frozen=True)
class FeatureMatrix:
    """The features of a plan for N entities, in the plan's order.

    values: float64[N, F], NaN unless PRESENT (and for a feature that is no number). statuses: uint8[N, F], of
    FeatureStatus. ages_ms: int64[N, F], as-of time minus newest event; −1 where there is none. objects: for each
    feature its values as they are, object[N], or None where `values` say everything. `counts` count a row once, however
    many entities share it.
    """

    plan: ReadPlan
    values: Floats
    statuses: NDArray[np.uint8]
    ages_ms: Times
    objects: tuple[NDArray[np.object_] | None, ...]
    counts: ReadCounts

    def column(self, position: int) -> list[FieldValue]:
        """The values of one feature as they are, one per entity, None where there is none."""
        exact = self.objects[position]
        if exact is not None:
            return list(exact.tolist())
        return _plain_column(self.values[:, position], self.statuses[:, position], self.plan.kinds[position])

    def vector(self, row: int) -> FeatureVector:
        """One entity's features, as a read of it alone gives them; `counts` are those of the whole matrix."""
        objects = tuple(self.column(position)[row] for position in range(len(self.plan.features)))
        return FeatureVector(self.values[row], objects, self.statuses[row], self.ages_ms[row], self.counts)


@dataclass(frozen=True)
class Lookup:
    """The rows that N entities need. keys: each once, view after view. For each view of the plan, owners: int64[N],
    which of its rows an entity has, and counts: how many rows there are."""

    keys: list[bytes]
    owners: tuple[Places, ...]
    counts: tuple[int, ...]


def lookup(plan: ReadPlan, entities: Sequence[Mapping[str, object]]) -> Lookup:
    """The rows of the plan for these entities, each of which has a value for each of the plan's join keys."""
    keys: list[bytes] = []
    owners = []
    counts = []
    for row in plan.rows:
        places: dict[tuple[object, ...], int] = {}
        named = [[entity[name] for entity in entities] for name in row.key_names]
        identities = list(zip(*named, strict=True)) if named else [()] * len(entities)
        owners.append(np.array([places.setdefault(key, len(places)) for key in identities], dtype=np.intp))
        counts.append(len(places))
        keys += [row.encoder.key(key) for key in places]
    return Lookup(keys, tuple(owners), tuple(counts))


class MatrixReader:
    """What reading many entities by one plan takes, worked out once."""

    def __init__(self, plan: ReadPlan) -> None:
        self.plan = plan
        names = _slot_names(plan)
        self._columns = [_columns(row, names) for row in plan.rows]
        self._slots = [np.array(row.slots, dtype=np.intp) for row in plan.rows]
        pairs = np.array(plan.copies, dtype=np.intp).reshape(-1, 2)
        self._copies = (pairs[:, 0], pairs[:, 1])
        self._input_kinds = ["DOUBLE"] * plan.input_count
        for row in plan.rows:
            kinds = {field.name: field.kind for field in row.view.fields}
            for slot in row.slots:
                self._input_kinds[slot] = kinds[names[slot]]

    def assemble(
        self,
        found: Lookup,
        rows: Sequence[bytes | None],
        entities: Sequence[Mapping[str, object]],
        as_of_ms: int,
        requests: Sequence[Mapping[str, object]] | None = None,
    ) -> FeatureMatrix:
        """The matrix from the rows of `found.keys`; `requests` have the request-time values of each entity."""
        counts = ReadCounts(rows_found=sum(data is not None for data in rows))
        inputs = _Inputs(len(entities), self._input_kinds)
        begin = 0
        for slots, columns, owner, count in zip(self._slots, self._columns, found.owners, found.counts, strict=True):
            inputs.take(slots, columns.read(rows[begin : begin + count], as_of_ms, counts), owner)
            begin += count
        out = _Outputs(len(entities), len(self.plan.features))
        out.copy(inputs, *self._copies)
        for run in self.plan.on_demand:
            _run_on_demand(run, inputs, _Given(entities, requests or [{}] * len(entities)), out, counts)
        return FeatureMatrix(self.plan, out.values, out.statuses, out.ages_ms, tuple(out.objects), counts)


class _Inputs:
    """Every stored value that the plan reads, by input slot, for each entity."""

    def __init__(self, length: int, kinds: Sequence[str]) -> None:
        self.values = np.full((length, len(kinds)), np.nan)
        self.statuses = np.full((length, len(kinds)), FeatureStatus.NOT_FOUND, np.uint8)
        self.ages_ms = np.full((length, len(kinds)), NO_AGE, np.int64)
        self.objects: dict[int, NDArray[np.object_]] = {}
        self._kinds = kinds
        self._plain: dict[int, list[FieldValue]] = {}

    def take(self, slots: Places, block: ViewBlock, owner: Places) -> None:
        """Give each entity the values of its row."""
        self.values[:, slots] = block.values[owner]
        self.statuses[:, slots] = block.statuses[owner]
        self.ages_ms[:, slots] = block.ages_ms[owner, np.newaxis]
        for place, column in block.objects.items():
            self.objects[int(slots[place])] = column[owner]

    def plain(self, slot: int) -> list[FieldValue]:
        """The values of one slot as they are."""
        if slot not in self._plain:
            exact = self.objects.get(slot)
            self._plain[slot] = (
                list(exact.tolist())
                if exact is not None
                else _plain_column(self.values[:, slot], self.statuses[:, slot], self._kinds[slot])
            )
        return self._plain[slot]


class _Outputs:
    def __init__(self, length: int, width: int) -> None:
        self.values = np.full((length, width), np.nan)
        self.statuses = np.full((length, width), FeatureStatus.NULL_VALUE, np.uint8)
        self.ages_ms = np.full((length, width), NO_AGE, np.int64)
        self.objects: list[NDArray[np.object_] | None] = [None] * width

    def copy(self, inputs: _Inputs, slots: Places, positions: Places) -> None:
        """Give features as they are stored."""
        self.values[:, positions] = inputs.values[:, slots]
        self.statuses[:, positions] = inputs.statuses[:, slots]
        self.ages_ms[:, positions] = inputs.ages_ms[:, slots]
        for slot, position in zip(slots.tolist(), positions.tolist(), strict=True):
            self.objects[position] = inputs.objects.get(slot)

    def set(self, position: int, column: Sequence[FieldValue], ages_ms: Times) -> None:
        """Give a feature as a function computed it."""
        numbers = [float(v) if isinstance(v, (int, float)) else np.nan for v in column]
        self.values[:, position] = numbers
        self.statuses[:, position] = statuses_of(column)
        self.ages_ms[:, position] = ages_ms
        self.objects[position] = object_column(column)


@dataclass(frozen=True)
class _Given:
    """What each entity brings to an on-demand function beside stored values."""

    entities: Sequence[Mapping[str, object]]
    requests: Sequence[Mapping[str, object]]

    def columns(self, run: OnDemandRun, inputs: _Inputs) -> dict[str, list[Any]]:
        """The function's inputs, name → one value per entity, each list the function's own."""
        names = dict.fromkeys(name for entity in self.entities for name in entity)
        columns: dict[str, list[Any]] = {name: [entity.get(name) for entity in self.entities] for name in names}
        columns.update((name, list(inputs.plain(slot))) for name, slot in run.inputs)
        for field in run.view.requests:
            columns[field.name] = [request.get(field.name) for request in self.requests]
        return columns


def _run_on_demand(run: OnDemandRun, inputs: _Inputs, given: _Given, out: _Outputs, counts: ReadCounts) -> None:
    length = len(given.entities)
    columns = None if run.view.singleton else _all_at_once(run, given.columns(run, inputs), length)
    if columns is None:
        columns = _one_by_one(run, given.columns(run, inputs), length, counts)
    ages_ms = _youngest(inputs.ages_ms[:, sorted({slot for _, slot in run.inputs})])
    for name, position in run.outputs:
        out.set(position, columns[name], ages_ms)


def _all_at_once(run: OnDemandRun, given: dict[str, list[Any]], length: int) -> dict[str, list[FieldValue]] | None:
    """The outputs of one call over all rows; None when it failed, for any row."""
    try:
        result = run.view.function(given)
        if any(len(column) != length for column in result.values()):
            return None
        nothing = [None] * length
        return {
            name: [_plain(value, name in run.view.words) for value in result.get(name, nothing)]
            for name, _ in run.outputs
        }
    except Exception:  # the feature author's code: each row is tried alone next, and counted there when it fails
        return None


def _one_by_one(
    run: OnDemandRun, given: dict[str, list[Any]], length: int, counts: ReadCounts
) -> dict[str, list[FieldValue]]:
    """The outputs of a call for each row, so that a row that fails costs only itself."""
    columns: dict[str, list[FieldValue]] = {name: [None] * length for name, _ in run.outputs}
    for i in range(length):
        row = {name: column[i] for name, column in given.items()}
        try:
            if run.view.singleton:
                result = run.view.function(row)
            else:
                answer = run.view.function({name: [value] for name, value in row.items()})
                result = {name: column[0] for name, column in answer.items()}
            plain = {name: _plain(result.get(name), name in run.view.words) for name, _ in run.outputs}
        except Exception:  # the feature author's code, which may fail in any way on odd values
            counts.on_demand_failed += 1
            continue
        for name, value in plain.items():
            columns[name][i] = value
    return columns


def _youngest(ages_ms: Times) -> Times:
    """int64[N]: the least age of each row of int64[N, inputs], NO_AGE where there is none."""
    if not ages_ms.shape[1]:
        return np.full(len(ages_ms), NO_AGE, np.int64)
    least: Times = np.where(ages_ms == NO_AGE, _NO_AGE_IS_LAST, ages_ms).min(axis=1)
    return np.where(least == _NO_AGE_IS_LAST, NO_AGE, least)


def _plain_column(values: Floats, statuses: NDArray[np.uint8], kind: str) -> list[FieldValue]:
    """Numbers as Python's own, of the feature's kind, None where there is none."""
    present = statuses == FeatureStatus.PRESENT
    if present.all():
        return _plain_numbers(values, kind)
    numbers = iter(_plain_numbers(values[present], kind))
    return [next(numbers) if there else None for there in present.tolist()]


def _plain_numbers(values: Floats, kind: str) -> list[Any]:
    if kind in INTEGER_KINDS:
        fits = bool(np.all(np.abs(values) <= EXACT_MAX))
        return list(values.astype(np.int64).tolist()) if fits else [int(value) for value in values.tolist()]
    return list((values == 1).tolist() if kind == "BOOL" else values.tolist())


def _columns(row: RowRead, names: Mapping[int, str]) -> ColumnReader:
    fields = [field.name for field in row.view.fields]
    return column_reader(row.view, [fields.index(names[slot]) for slot in row.slots])


def _slot_names(plan: ReadPlan) -> dict[int, str]:
    """Which feature each input slot holds: a slot is there because a feature or an on-demand function wants it."""
    names = {slot: plan.features[position].partition(":")[2] for slot, position in plan.copies}
    for run in plan.on_demand:
        for name, slot in run.inputs:
            names.setdefault(slot, name)
    return names
