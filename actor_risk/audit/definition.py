"""What an audit needs to know of a feature service: how exact each feature is, and which history it rests on."""

from __future__ import annotations

from dataclasses import dataclass

from feast import FeatureStore
from feast.data_source import DataSource
from feast.errors import FeatureServiceNotFoundException

from materialize.definitions import DefinitionError, ServiceDefinition, StreamView, compile_service
from materialize.online import NUMERIC_KINDS

EXACT_FUNCTIONS = frozenset({"count", "count_distinct", "min", "max", "first", "last"})
WORD_KINDS = frozenset({"STRING", "BYTES"})
FLOAT32_TOLERANCE = 2.0**-22
"""Two sums that differ in the last bits of a float64 may round to neighbouring float32."""


@dataclass(frozen=True)
class AuditedFeature:
    """A feature. tolerance: relative, absolute below 1; 0: exact. topics: the streams that its value rests on."""

    ref: str
    name: str
    kind: str
    tolerance: float
    topics: frozenset[str]
    on_demand: bool

    @property
    def is_comparable(self) -> bool:
        """Whether values of its kind are told apart: numbers and words are, lists are not."""
        return self.kind in NUMERIC_KINDS or self.kind in WORD_KINDS


@dataclass(frozen=True)
class AuditedService:
    """A feature service, in the order of its features. sources: topic → the history of its events."""

    definition: ServiceDefinition
    features: tuple[AuditedFeature, ...]
    sources: dict[str, DataSource]


def audited_service(store: FeatureStore, name: str, tolerance: float) -> AuditedService | None:
    """The service as the registry has it; None when it has none of that name, or one that cannot be computed."""
    try:
        definition = compile_service(store.get_feature_service(name), store.registry, store.project)
    except (FeatureServiceNotFoundException, DefinitionError):
        return None
    return AuditedService(definition, _features(definition, tolerance), _sources(store, definition))


def _features(definition: ServiceDefinition, tolerance: float) -> tuple[AuditedFeature, ...]:
    tolerances: dict[tuple[str, str], float] = {}
    topics: dict[tuple[str, str], frozenset[str]] = {}
    for one in definition.views:
        for field in one.view.fields:
            tolerances[one.called, field.name] = 0.0
            topics[one.called, field.name] = frozenset()
        if isinstance(one.view, StreamView):
            for spec in one.view.spec.aggregations:
                tolerances[one.called, spec.feature] = 0.0 if spec.function in EXACT_FUNCTIONS else tolerance
                topics[one.called, spec.feature] = frozenset({one.view.topic})
    on_demand = {
        view.name: frozenset().union(*(topics.get(source, frozenset()) for source in view.inputs))
        for view in definition.on_demand
    }
    return tuple(
        AuditedFeature(
            ref=f"{called}:{field.name}",
            name=field.name,
            kind=field.kind,
            tolerance=_for_kind(tolerances.get((called, field.name), tolerance), field.kind),
            topics=on_demand[called] if called in on_demand else topics[called, field.name],
            on_demand=called in on_demand,
        )
        for called, field in definition.features
    )


def _for_kind(tolerance: float, kind: str) -> float:
    return max(tolerance, FLOAT32_TOLERANCE) if kind == "FLOAT" and tolerance else tolerance


def _sources(store: FeatureStore, definition: ServiceDefinition) -> dict[str, DataSource]:
    return {
        one.view.topic: store.registry.get_any_feature_view(one.view.name, store.project, allow_cache=True).batch_source
        for one in definition.views
        if isinstance(one.view, StreamView)
    }
