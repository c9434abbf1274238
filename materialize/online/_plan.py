"""Read plans: all that reading a feature service takes and that does not depend on the request, worked out once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from materialize.definitions import (
    BatchView,
    JoinKey,
    OnDemandView,
    ReasonFamily,
    RequestField,
    ServiceDefinition,
    ServiceView,
    StreamView,
)
from materialize.online._keys import KeyEncoder
from materialize.online._row_reader import RowReader, Wanted

Places = NDArray[np.intp]


@dataclass(frozen=True)
class RowRead:
    """One row to read: whose."""

    view: BatchView | StreamView
    key_names: tuple[str, ...]
    encoder: KeyEncoder


@dataclass(frozen=True)
class OnDemandRun:
    """One on-demand function: what it is given, and which of its results go to which outputs.

    inputs: (name in the function's dict, input slot). outputs: (name in its result, output position).
    """

    view: OnDemandView
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class ReadPlan:
    """How to read a feature service.

    features: "view:feature" in the service's order. join_keys: what a request must name. request_fields: what comes
    with a request. reader: gives the input slots from the rows. input_kinds: the Feast value type of each slot. copies:
    (input slot, output position) of the features that are given as they are stored. families: for each feature the
    name of its reason, or "" (empty where the service names no reasons).
    """

    service: str
    fingerprint: str
    features: tuple[str, ...]
    descriptions: tuple[str, ...]
    kinds: tuple[str, ...]
    join_keys: tuple[JoinKey, ...]
    request_fields: tuple[RequestField, ...]
    rows: tuple[RowRead, ...]
    reader: RowReader
    input_kinds: tuple[str, ...]
    copies: tuple[tuple[int, int], ...]
    on_demand: tuple[OnDemandRun, ...]
    reasons: tuple[ReasonFamily, ...] = ()
    families: tuple[str, ...] = ()

    @cached_property
    def copied(self) -> tuple[Places, Places]:
        """`copies` as two arrays: slots, and positions."""
        pairs = np.array(self.copies, dtype=np.intp).reshape(-1, 2)
        return np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])

    @cached_property
    def is_copy(self) -> bool:
        """Whether the features are the input slots as they are."""
        same = tuple((i, i) for i in range(len(self.features)))
        return tuple(sorted(self.copies)) == same and len(self.input_kinds) == len(self.features)

    @cached_property
    def alone(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For one entity, which has one row of each view: `row_views` and `owners` of `Found`."""
        views = np.arange(len(self.rows))
        return views, views[:, np.newaxis]

    @cached_property
    def key_groups(self) -> tuple[tuple[tuple[str, ...], tuple[int, ...]], ...]:
        """The rows whose keys have the same entity part: (names of the join keys, rows)."""
        groups: dict[object, list[int]] = {}
        for position, row in enumerate(self.rows):
            groups.setdefault((row.key_names, row.encoder.identity), []).append(position)
        return tuple((self.rows[members[0]].key_names, tuple(members)) for members in groups.values())


def compile_plan(project: str, service: ServiceDefinition) -> ReadPlan:
    """The plan of a feature service."""
    wanted = [_wanted(service_view) for service_view in service.views]
    refs = [(view.called, feature) for view in service.views for feature in view.features]
    slots = {ref: slot for slot, ref in enumerate(refs)}
    positions = {(view, field.name): i for i, (view, field) in enumerate(service.features)}
    return ReadPlan(
        service=service.name,
        fingerprint=service.fingerprint,
        features=tuple(f"{view}:{field.name}" for view, field in service.features),
        descriptions=tuple(field.description for _, field in service.features),
        kinds=tuple(field.kind for _, field in service.features),
        join_keys=_join_keys(service),
        request_fields=tuple(dict.fromkeys(field for view in service.on_demand for field in view.requests)),
        rows=tuple(_row_read(project, service_view) for service_view in service.views),
        reader=RowReader(wanted),
        input_kinds=tuple(one.view.fields[place].kind for one in wanted for place in one.places),
        copies=tuple((slot, positions[ref]) for ref, slot in slots.items() if ref in positions),
        on_demand=tuple(_on_demand_run(view, slots, positions) for view in service.on_demand),
        reasons=service.reasons,
        families=service.families,
    )


def _wanted(service_view: ServiceView) -> Wanted:
    names = [field.name for field in service_view.view.fields]
    return Wanted(service_view.view, tuple(names.index(feature) for feature in service_view.features))


def _row_read(project: str, service_view: ServiceView) -> RowRead:
    view = service_view.view
    return RowRead(view, service_view.key_names, KeyEncoder(project, view.name, view.join_keys))


def _join_keys(service: ServiceDefinition) -> tuple[JoinKey, ...]:
    named = [
        JoinKey(name, key.kind)
        for service_view in service.views
        for key, name in zip(service_view.view.join_keys, service_view.key_names, strict=True)
    ]
    return tuple(dict.fromkeys(named))


def _on_demand_run(
    view: OnDemandView, slots: dict[tuple[str, str], int], positions: dict[tuple[str, str], int]
) -> OnDemandRun:
    inputs = [(feature, slots[source, feature]) for source, feature in view.inputs]
    inputs += [(f"{source}__{feature}", slots[source, feature]) for source, feature in view.inputs]
    outputs = [(f.name, positions[view.name, f.name]) for f in view.fields if (view.name, f.name) in positions]
    return OnDemandRun(view, tuple(inputs), tuple(outputs))
