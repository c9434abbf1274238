"""The plans of one registry: of its feature services, and of lists of features that somebody asks for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from feast import FeatureService, FeatureStore, FeatureView
from feast.errors import FeastObjectNotFoundException, FeatureServiceNotFoundException

from materialize.definitions import DefinitionError, JoinKey, ServiceDefinition, compile_service
from materialize.online._errors import UnknownFeatureError, UnknownServiceError
from materialize.online._plan import ReadPlan, compile_plan

K = TypeVar("K")
V = TypeVar("V")

KEPT_MAX = 256
"""Plans of feature lists that are kept; the ones used longest ago go first."""


@dataclass(frozen=True, slots=True)
class EntityFeatures:
    """An entity of the registry: its join key, and the features, "view:feature", of all views keyed by it alone."""

    join_key: JoinKey
    features: tuple[str, ...]


class Plans:
    """Compiles plans at their first use and keeps them."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._of_services: dict[str, ReadPlan] = {}
        self._of_features: OrderedDict[tuple[str, ...], ReadPlan] = OrderedDict()
        self._join_keys: dict[str, JoinKey] | None = None
        self._entities: dict[str, EntityFeatures] | None = None
        self._read_at = _stamp(store)

    def join_keys(self) -> dict[str, JoinKey]:
        """The join keys of all entities in the registry, by name."""
        if self._join_keys is None:
            entities = self._store.list_entities(allow_cache=True)
            self._join_keys = {entity.join_key: JoinKey(entity.join_key, entity.value_type.name) for entity in entities}
        return self._join_keys

    def entities(self) -> dict[str, EntityFeatures]:
        """The entities of the registry, by name."""
        if self._entities is None:
            self._entities = _entities(self._store)
        return self._entities

    def services(self) -> list[str]:
        """The names of the registry's feature services."""
        return sorted(service.name for service in self._store.list_feature_services())

    def of_service(self, service: str) -> ReadPlan:
        """The plan of a feature service. Raises UnknownServiceError."""
        if service not in self._of_services:
            self._of_services[service] = read_plan(self._store, service)
        return self._of_services[service]

    def of_features(self, features: Sequence[str]) -> ReadPlan:
        """The plan of features, each "view:feature", in that order. Raises UnknownFeatureError or DefinitionError."""
        asked = tuple(features)
        if asked not in self._of_features:
            self._of_features[asked] = _features_plan(self._store, asked)
        return _newest(self._of_features, asked)

    def refresh(self) -> bool:
        """Read the registry again; if it has changed, compile the plans in use anew beside the old ones, then put them
        in their place at once. Returns whether it has changed.

        The plan of a service that is gone, or cannot be compiled any more, is forgotten: asking for it says why.
        """
        self._store.refresh_registry()
        stamp = _stamp(self._store)
        if stamp == self._read_at:
            return False
        fresh = {}
        for service in self._of_services:
            with suppress(DefinitionError, UnknownServiceError):
                fresh[service] = read_plan(self._store, service)
        self._of_services, self._of_features = fresh, OrderedDict()
        self._join_keys = self._entities = None
        self._read_at = stamp
        return True


def _entities(store: FeatureStore) -> dict[str, EntityFeatures]:
    views = store.registry.list_all_feature_views(store.project, allow_cache=True)
    stored = [view for view in views if isinstance(view, FeatureView) and view.online]
    found = {}
    for entity in store.list_entities(allow_cache=True):
        of_it = sorted((view for view in stored if view.entities == [entity.name]), key=lambda view: view.name)
        fields = [(view.name, field.name) for view in of_it for field in view.features]
        # Read back from the registry, a stream view lists its join keys among its features.
        refs = tuple(f"{view}:{name}" for view, name in fields if name != entity.join_key)
        found[entity.name] = EntityFeatures(JoinKey(entity.join_key, entity.value_type.name), refs)
    return found


def _stamp(store: FeatureStore) -> tuple[str, int]:
    """What is another after each change of the registry."""
    proto = store.registry.proto()
    return proto.version_id, proto.last_updated.ToNanoseconds()


def read_plan(store: FeatureStore, service: str) -> ReadPlan:
    """The plan of a feature service in the store's registry. Raises UnknownServiceError or DefinitionError."""
    try:
        definition = store.get_feature_service(service, allow_cache=True)
    except FeatureServiceNotFoundException:
        names = ", ".join(sorted(found.name for found in store.list_feature_services())) or "none"
        raise UnknownServiceError(
            f"no feature service {service!r} in the registry (there are: {names}): run `actor-risk apply`"
        ) from None
    return _compiled(store.project, compile_service(definition, store.registry, store.project))


def _features_plan(store: FeatureStore, features: tuple[str, ...]) -> ReadPlan:
    by_view: dict[str, list[str]] = {}
    for ref in features:
        view, separator, name = ref.partition(":")
        if not (view and separator and name):
            raise UnknownFeatureError(f"{ref!r} is no feature: write it as view:feature")
        if name in by_view.setdefault(view, []):
            raise UnknownFeatureError(f"{ref!r} is asked for twice: leave one out")
        by_view[view].append(name)
    projections = [_projected(store, view, names) for view, names in by_view.items()]
    adhoc = FeatureService(name="", features=projections)
    definition = compile_service(adhoc, store.registry, store.project)
    fields = {f"{view}:{field.name}": (view, field) for view, field in definition.features}
    ordered = tuple(fields[ref] for ref in features)
    return _compiled(store.project, replace(definition, features=ordered))


def _compiled(project: str, definition: ServiceDefinition) -> ReadPlan:
    try:
        return compile_plan(project, definition)
    except ValueError as error:  # an entity of a type that has no key
        raise DefinitionError(str(error)) from error


def _projected(store: FeatureStore, view: str, names: list[str]) -> object:
    try:
        definition = store.registry.get_any_feature_view(view, store.project, allow_cache=True)
    except FeastObjectNotFoundException:
        raise UnknownFeatureError(f"no feature view {view!r} in the registry: run `actor-risk apply`") from None
    there = [field.name for field in definition.features]
    absent = [name for name in names if name not in there]
    if absent:
        raise UnknownFeatureError(f"feature view {view!r} has no {', '.join(absent)}; it has {', '.join(there)}")
    return definition[names]


def _newest(kept: OrderedDict[K, V], key: K) -> V:
    """The value of a key, which becomes the newest; beyond the bound the oldest goes."""
    kept.move_to_end(key)
    if len(kept) > KEPT_MAX:
        kept.popitem(last=False)
    return kept[key]
