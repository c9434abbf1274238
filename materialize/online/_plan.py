"""Read plans: all that reading a feature service takes and that does not depend on the request, worked out once."""

from __future__ import annotations

from dataclasses import dataclass

from materialize.definitions import (
    BatchView,
    JoinKey,
    OnDemandView,
    RequestField,
    ServiceDefinition,
    ServiceView,
    StreamView,
)
from materialize.online._keys import KeyEncoder
from materialize.online._view_reader import ViewReader, view_reader


@dataclass(frozen=True)
class RowRead:
    """One row to read: whose, and which stored values go to which input slots."""

    view: BatchView | StreamView
    key_names: tuple[str, ...]
    encoder: KeyEncoder
    reader: ViewReader
    slots: tuple[int, ...]


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
    with a request. copies: (input slot, output position) of the features that are given as they are stored.
    """

    service: str
    fingerprint: str
    features: tuple[str, ...]
    descriptions: tuple[str, ...]
    kinds: tuple[str, ...]
    join_keys: tuple[JoinKey, ...]
    request_fields: tuple[RequestField, ...]
    rows: tuple[RowRead, ...]
    copies: tuple[tuple[int, int], ...]
    on_demand: tuple[OnDemandRun, ...]
    input_count: int


def compile_plan(project: str, service: ServiceDefinition) -> ReadPlan:
    """The plan of a feature service."""
    slots: dict[tuple[str, str], int] = {}
    rows = tuple(_row_read(project, service_view, slots) for service_view in service.views)
    positions = {(view, field.name): i for i, (view, field) in enumerate(service.features)}
    return ReadPlan(
        service=service.name,
        fingerprint=service.fingerprint,
        features=tuple(f"{view}:{field.name}" for view, field in service.features),
        descriptions=tuple(field.description for _, field in service.features),
        kinds=tuple(field.kind for _, field in service.features),
        join_keys=_join_keys(service),
        request_fields=tuple(dict.fromkeys(field for view in service.on_demand for field in view.requests)),
        rows=rows,
        copies=tuple((slot, positions[ref]) for ref, slot in slots.items() if ref in positions),
        on_demand=tuple(_on_demand_run(view, slots, positions) for view in service.on_demand),
        input_count=len(slots),
    )


def _row_read(project: str, service_view: ServiceView, slots: dict[tuple[str, str], int]) -> RowRead:
    view = service_view.view
    names = [field.name for field in view.fields]
    for feature in service_view.features:
        slots[service_view.called, feature] = len(slots)
    return RowRead(
        view=view,
        key_names=service_view.key_names,
        encoder=KeyEncoder(project, view.name, view.join_keys),
        reader=view_reader(view, [names.index(feature) for feature in service_view.features]),
        slots=tuple(slots[service_view.called, feature] for feature in service_view.features),
    )


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
