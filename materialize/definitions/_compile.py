"""From Feast's objects to ours. The only module, with the plug-ins, that knows the inside of Feast's definitions."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

from feast import FeatureService, FeatureView
from feast.aggregation import Aggregation
from feast.data_source import KafkaSource
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.stream_feature_view import StreamFeatureView

from materialize.definitions._code import canonical_code
from materialize.definitions._errors import DefinitionError
from materialize.definitions._reasons import families_of, reason_families
from materialize.definitions._types import (
    BatchView,
    FeatureField,
    JoinKey,
    OnDemandView,
    RequestField,
    ServiceDefinition,
    ServiceView,
    StreamView,
    View,
)
from materialize.kernel import ROW_BYTES_MAX, AggregationSpec, KernelError, ViewSpec, Window, row_bytes_max


def compile_view(view: FeatureView, join_keys: tuple[JoinKey, ...] | None = None) -> View:
    """The compiled form of a Feast feature view; a stream view with aggregations becomes a StreamView.

    Raises DefinitionError for a definition that cannot be computed.
    """
    keys = entity_join_keys(view) if join_keys is None else join_keys
    if isinstance(view, StreamFeatureView) and view.aggregations:
        return _stream_view(view, keys)
    fields = tuple(_field(field) for field in view.features)
    text = "\n".join([view.name, *(f"{field.name}:{field.kind}" for field in fields)])
    return BatchView(view.name, keys, fields, _hash64(text), _milliseconds(view.ttl))


def entity_join_keys(view: FeatureView) -> tuple[JoinKey, ...]:
    """The join keys of a view with their types, sorted by name as Feast sorts them in an entity key."""
    return tuple(
        sorted(
            (JoinKey(c.name, c.dtype.to_value_type().name) for c in view.entity_columns if c.name != "__dummy_id"),
            key=lambda key: key.name,
        )
    )


def compile_service(service: FeatureService, registry: BaseRegistry, project: str) -> ServiceDefinition:
    """The compiled form of a feature service, with everything that its on-demand views need to be read.

    Raises DefinitionError for an on-demand view that is not in Python mode.
    """
    stored: dict[str, tuple[FeatureView, list[str], dict[str, str]]] = {}
    on_demand: list[OnDemandView] = []
    features: list[tuple[str, FeatureField]] = []
    texts: list[str] = []
    for projection in service.feature_view_projections:
        view = registry.get_any_feature_view(projection.name, project, allow_cache=True)
        called = projection.name_alias or projection.name
        if isinstance(view, OnDemandFeatureView):
            features += [(called, _on_demand_field(view, field)) for field in projection.features]
            on_demand.append(_on_demand(view))
            texts.append(canonical_code(view.feature_transformation.udf_string))
            for source in view.source_feature_view_projections.values():
                source_view = registry.get_any_feature_view(source.name, project, allow_cache=True)
                _need(stored, source_view, source, [field.name for field in source.features])
        else:
            features += [(called, _field(field)) for field in projection.features]
            _need(stored, view, projection, [field.name for field in projection.features])
    views = tuple(_service_view(called, *entry) for called, entry in stored.items())
    texts += [f"{view.called}={view.view.name}({','.join(view.key_names)})={view.view.fingerprint}" for view in views]
    texts += [f"{called}:{field.name}:{field.kind}" for called, field in features]
    fingerprint = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
    families = families_of(service.name, service.tags, [field.name for _, field in features])
    reasons = reason_families(service.name, service.tags)
    return ServiceDefinition(service.name, views, tuple(on_demand), tuple(features), fingerprint, reasons, families)


def _stream_view(view: StreamFeatureView, keys: tuple[JoinKey, ...]) -> StreamView:
    if view.udf is not None and str(getattr(view.mode, "value", view.mode)) != "python":
        raise DefinitionError(f"view {view.name!r}: write its transformation in mode 'python' (columns to columns)")
    # Read back from the registry, a stream view lists its join keys among its features.
    key_names = {key.name for key in keys}
    fields = {field.name: _field(field) for field in view.features if field.name not in key_names}
    specs = tuple(_aggregation(view, aggregation) for aggregation in view.aggregations)
    unknown = [spec.feature for spec in specs if spec.feature not in fields]
    extra = sorted(set(fields) - {spec.feature for spec in specs})
    if unknown or extra:
        raise DefinitionError(
            f"view {view.name!r}: its schema and its aggregations differ: "
            f"not in the schema: {unknown or 'none'}; without an aggregation: {extra or 'none'}"
        )
    try:
        spec = ViewSpec(view.name, specs, canonical_code(view.udf_string or ""))
    except KernelError as error:
        raise DefinitionError(str(error)) from error
    _check_size(spec)
    return StreamView(
        name=view.name,
        join_keys=keys,
        fields=tuple(fields[spec.feature] for spec in specs),
        spec=spec,
        topic=_topic(view),
        timestamp_field=view.timestamp_field,
        ttl_ms=_milliseconds(view.ttl),
        transform=view.udf,
    )


def _check_size(spec: ViewSpec) -> None:
    size = row_bytes_max(spec)
    if size > ROW_BYTES_MAX:
        raise DefinitionError(
            f"view {spec.name!r}: one row could take {size / 2**20:.0f} MiB, and may take {ROW_BYTES_MAX >> 20}: "
            "choose a longer slide_interval for its longest windows, or fewer distinct counts over many tiles"
        )


def _aggregation(view: StreamFeatureView, aggregation: Aggregation) -> AggregationSpec:
    if aggregation.time_window is None:
        raise DefinitionError(f"view {view.name!r}: {aggregation.function}({aggregation.column}) has no time_window")
    slide = aggregation.slide_interval
    try:
        window = Window.of(_milliseconds(aggregation.time_window), None if slide is None else _milliseconds(slide))
    except KernelError as error:
        raise DefinitionError(f"view {view.name!r}: {error}") from error
    name = aggregation.resolved_name(aggregation.time_window)
    return AggregationSpec(name, aggregation.column, aggregation.function, window)


def _topic(view: StreamFeatureView) -> str:
    source = view.stream_source
    return str(source.kafka_options.topic) if isinstance(source, KafkaSource) else str(source.name)


def _on_demand(view: OnDemandFeatureView) -> OnDemandView:
    if view.mode != "python":
        raise DefinitionError(f"on-demand view {view.name!r}: use mode='python'; {view.mode!r} is too slow to serve")
    inputs = [
        (projection.name_alias or projection.name, field.name)
        for projection in view.source_feature_view_projections.values()
        for field in projection.features
    ]
    requests = [
        RequestField(field.name, field.dtype.to_value_type().name)
        for source in view.source_request_sources.values()
        for field in source.schema
    ]
    return OnDemandView(
        name=view.projection.name_alias or view.name,
        function=view.feature_transformation.udf,
        singleton=bool(view.singleton),
        inputs=tuple(inputs),
        requests=tuple(requests),
        fields=tuple(_on_demand_field(view, field) for field in view.features),
    )


def _on_demand_field(view: OnDemandFeatureView, field: Any) -> FeatureField:
    """Feast refuses an on-demand field with a description of its own: it is in the view's tags instead."""
    plain = _field(field)
    return FeatureField(plain.name, plain.kind, view.tags.get(f"describe:{plain.name}", plain.description))


def _need(stored: dict[str, Any], view: FeatureView, projection: Any, features: list[str]) -> None:
    called = projection.name_alias or projection.name
    entry = stored.setdefault(called, (view, [], dict(projection.join_key_map)))
    entry[1].extend(name for name in features if name not in entry[1])


def _service_view(called: str, view: FeatureView, features: list[str], join_key_map: dict[str, str]) -> ServiceView:
    compiled = compile_view(view)
    key_names = tuple(join_key_map.get(key.name, key.name) for key in compiled.join_keys)
    return ServiceView(compiled, tuple(features), key_names, called)


def _field(field: Any) -> FeatureField:
    return FeatureField(field.name, field.dtype.to_value_type().name, field.description or "")


def _milliseconds(span: timedelta | None) -> int:
    return 0 if span is None else span // timedelta(milliseconds=1)


def _hash64(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
