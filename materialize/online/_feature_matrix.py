"""From the rows of a request to its features, for any number of entities: decode, merge, run the on-demand functions.

No I/O. A row that several entities share is read once. An on-demand function over lists runs once over all entities.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from materialize.online._batch_rows import FieldValue
from materialize.online._compiled import NO_ROW
from materialize.online._header import REASONS
from materialize.online._plan import OnDemandRun, Places, ReadPlan
from materialize.online._row_reader import NO_EVENTS, Block, Found, Ints
from materialize.online._scored_events import NO_SCORED, Events, scored_blocks
from materialize.online._values import NO_AGE, FeatureStatus, Met, ReadCounts, object_column, plain_column, statuses_of

Floats = NDArray[np.float64]
Statuses = NDArray[np.uint8]
Entity = Mapping[str, object]
_NO_AGE_IS_LAST = np.iinfo(np.int64).max


@dataclass(frozen=True)
class FeatureVector:
    """The features of a service for one set of entities, in its order.

    values: float64[F], NaN unless PRESENT (and for a feature that is no number). statuses: uint8[F], of FeatureStatus.
    ages_ms: int64[F], as-of time minus newest event; −1 where there is none. counts: what was met on the way to them.
    objects: feature → its value as it is, None for none, where `values` do not say everything.
    """

    values: Floats
    statuses: Statuses
    ages_ms: Ints
    counts: ReadCounts
    objects: Mapping[int, FieldValue] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class FeatureMatrix:
    """The features of a plan for N entities, in the plan's order.

    values: float64[N, F], NaN unless PRESENT (and for a feature that is no number). statuses: uint8[N, F], of
    FeatureStatus. ages_ms: int64[N, F], as-of time minus newest event; −1 where there is none. objects: feature → its
    values as they are, object[N], where `values` do not say everything. met: what was met on the way to each entity.
    """

    plan: ReadPlan
    values: Floats
    statuses: Statuses
    ages_ms: Ints
    objects: Mapping[int, NDArray[np.object_]]
    met: Met

    def column(self, position: int) -> list[FieldValue]:
        """The values of one feature as they are, one per entity, None where there is none."""
        exact = self.objects.get(position)
        if exact is not None:
            return list(exact.tolist())
        return plain_column(self.values[:, position], self.statuses[:, position], self.plan.kinds[position])

    def row(self, entity: int) -> list[FieldValue]:
        """One entity's features as they are, None where there is none."""
        return [self.column(position)[entity] for position in range(len(self.plan.features))]

    def vector(self, entity: int) -> FeatureVector:
        """One entity's features."""
        exact = {position: column[entity] for position, column in self.objects.items()}
        return FeatureVector(
            self.values[entity], self.statuses[entity], self.ages_ms[entity], self.met.of(entity), exact
        )


class Lookup(NamedTuple):
    """The rows that N entities need. keys: each once, view after view; the rest as in `Found`."""

    keys: list[bytes]
    row_views: Ints
    owners: Ints


def lookup(plan: ReadPlan, entities: Sequence[Entity], apart: Sequence[Hashable] | None = None) -> Lookup:
    """The rows of the plan for these entities, each of which has a value for each of the plan's join keys.

    Entities share a row unless they differ in `apart`, which has one value for each of them.
    """
    if len(entities) == 1:
        return _lookup_one(plan, entities[0])
    parts: list[list[bytes]] = [[]] * len(plan.rows)
    places: list[Places] = [np.empty(0, np.intp)] * len(plan.rows)
    for names, members in plan.key_groups:
        named = [[entity[name] for entity in entities] for name in names]
        identities = zip(*named, strict=True) if named else iter([()] * len(entities))
        codes: dict[tuple[tuple[object, ...], Hashable], int] = {}
        kinds = zip(identities, apart or repeat(None), strict=False)
        owner = np.array([codes.setdefault(kind, len(codes)) for kind in kinds], dtype=np.int64)
        encoded = plan.rows[members[0]].encoder.entities([identity for identity, _ in codes])
        for member in members:
            parts[member], places[member] = encoded, owner
    counts = [len(encoded) for encoded in parts]
    firsts = np.cumsum([0, *counts[:-1]], dtype=np.int64) if counts else np.empty(0, np.int64)
    owners = np.array(places, dtype=np.int64).reshape(len(plan.rows), len(entities)) + firsts[:, np.newaxis]
    keys = [row.encoder.prefix + part for row, encoded in zip(plan.rows, parts, strict=True) for part in encoded]
    return Lookup(keys, np.repeat(np.arange(len(counts)), counts), owners)


def _lookup_one(plan: ReadPlan, entity: Entity) -> Lookup:
    keys = [b""] * len(plan.rows)
    for names, members in plan.key_groups:
        part = plan.rows[members[0]].encoder.entity([entity[name] for name in names])
        for member in members:
            keys[member] = plan.rows[member].encoder.prefix + part
    return Lookup(keys, *plan.alone)


def apart(as_of_ms: Sequence[int], events: Events) -> list[Hashable] | None:
    """What keeps entities from sharing a row: another as-of time, an event of their own. None when nothing does."""
    if not events and len(set(as_of_ms)) <= 1:
        return None
    return [(time_ms, n if n in events else None) for n, time_ms in enumerate(as_of_ms)]


def assemble(
    plan: ReadPlan,
    wanted: Lookup,
    rows: Sequence[bytes | None],
    entities: Sequence[Entity],
    as_of_ms: Sequence[int],
    requests: Sequence[Entity] | None = None,
    events: Events = NO_SCORED,
) -> FeatureMatrix:
    """The features from the rows of `wanted.keys`, each entity's as of its time.

    `requests` have the request-time values of each entity. `events`: an entity's position → its scored event, which is
    merged into those of its rows that it concerns.
    """
    failed: list[int] = []
    extra = scored_blocks(plan, wanted.owners, entities, events, failed) if events else NO_EVENTS
    block = plan.reader.read(Found(rows, wanted.row_views, wanted.owners), np.array(as_of_ms, np.int64), extra)
    met = _met(block, wanted.owners)
    for n in failed:
        met.event_failed[n] += 1
    if plan.is_copy:
        return FeatureMatrix(plan, block.values, block.statuses, block.ages_ms, block.objects, met)
    inputs = _Inputs(plan, block)
    out = _Outputs(plan, block)
    for run in plan.on_demand:
        _run_on_demand(run, inputs, _Given(entities, requests or [{}] * len(entities)), out, met)
    return FeatureMatrix(plan, out.values, out.statuses, out.ages_ms, out.objects, met)


def _met(block: Block, owners: Ints) -> Met:
    """What the rows of each entity were like."""
    met = Met(block.rows_found)
    if block.odd_rows:
        for n in np.nonzero(block.inexact[owners])[1].tolist():
            met.inexact[n] += 1
        reasons = block.reasons[owners]
        for view, n in np.argwhere(reasons > NO_ROW).tolist():
            met.refused.setdefault(n, Counter())[REASONS[reasons[view, n]]] += 1
    return met


class _Inputs:
    """The input slots as an on-demand function sees them."""

    def __init__(self, plan: ReadPlan, block: Block) -> None:
        self.ages_ms = block.ages_ms
        self._block = block
        self._kinds = plan.input_kinds
        self._plain: dict[int, list[FieldValue]] = {}

    def plain(self, slot: int) -> list[FieldValue]:
        """The values of one slot as they are."""
        if slot not in self._plain:
            block, exact = self._block, self._block.objects.get(slot)
            self._plain[slot] = (
                list(exact.tolist())
                if exact is not None
                else plain_column(block.values[:, slot], block.statuses[:, slot], self._kinds[slot])
            )
        return self._plain[slot]


class _Outputs:
    """The features in the plan's order, those that are given as they are stored filled in."""

    def __init__(self, plan: ReadPlan, block: Block) -> None:
        shape = (len(block.values), len(plan.features))
        self.values = np.full(shape, np.nan)
        self.statuses = np.full(shape, FeatureStatus.NULL_VALUE, np.uint8)
        self.ages_ms = np.full(shape, NO_AGE, np.int64)
        slots, positions = plan.copied
        self.values[:, positions] = block.values[:, slots]
        self.statuses[:, positions] = block.statuses[:, slots]
        self.ages_ms[:, positions] = block.ages_ms[:, slots]
        self.objects = {to: block.objects[slot] for slot, to in plan.copies if slot in block.objects}

    def set(self, position: int, column: Sequence[FieldValue], ages_ms: Ints) -> None:
        """Give a feature as a function computed it."""
        self.values[:, position] = [float(v) if isinstance(v, (int, float)) else np.nan for v in column]
        self.statuses[:, position] = statuses_of(column)
        self.ages_ms[:, position] = ages_ms
        self.objects[position] = object_column(column)


@dataclass(frozen=True)
class _Given:
    """What each entity brings to an on-demand function beside stored values."""

    entities: Sequence[Entity]
    requests: Sequence[Entity]

    def columns(self, run: OnDemandRun, inputs: _Inputs) -> dict[str, list[Any]]:
        """The function's inputs, name → one value per entity, each list the function's own."""
        names = dict.fromkeys(name for entity in self.entities for name in entity)
        columns: dict[str, list[Any]] = {name: [entity.get(name) for entity in self.entities] for name in names}
        columns.update((name, list(inputs.plain(slot))) for name, slot in run.inputs)
        for field in run.view.requests:
            columns[field.name] = [request.get(field.name) for request in self.requests]
        return columns


def _run_on_demand(run: OnDemandRun, inputs: _Inputs, given: _Given, out: _Outputs, met: Met) -> None:
    length = len(given.entities)
    columns = None if run.view.singleton else _all_at_once(run, given.columns(run, inputs), length)
    if columns is None:
        columns = _one_by_one(run, given.columns(run, inputs), length, met)
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


def _one_by_one(run: OnDemandRun, given: dict[str, list[Any]], length: int, met: Met) -> dict[str, list[FieldValue]]:
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
            met.on_demand_failed[i] += 1
            continue
        for name, value in plain.items():
            columns[name][i] = value
    return columns


def _youngest(ages_ms: Ints) -> Ints:
    """int64[N]: the least age of each row of int64[N, inputs], NO_AGE where there is none."""
    if not ages_ms.shape[1]:
        return np.full(len(ages_ms), NO_AGE, np.int64)
    least: Ints = np.where(ages_ms == NO_AGE, _NO_AGE_IS_LAST, ages_ms).min(axis=1)
    return np.where(least == _NO_AGE_IS_LAST, NO_AGE, least)


def _plain(value: Any, is_word: bool) -> FieldValue:
    """A function's result as Python's own value, None for null. Raises TypeError for one that its field cannot have."""
    if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0:
        value = value.item()
    if value is None or value != value:
        return None
    if not isinstance(value, (str, bytes) if is_word else (int, float)):
        raise TypeError(f"a {type(value).__name__} is no value of this feature")
    return value
