"""What a definition means apart from how it is called: by it, what was renamed is told from what is another thing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Protocol, TypeVar

from actor_risk.changes.described import (
    EntityDefinition,
    FeatureDefinition,
    ServiceDefinition,
    SourceDefinition,
    ViewDefinition,
)
from actor_risk.changes.functions import outputs

MOST = 0.5
"""More than this share of a view's features are found again in a view that is only called otherwise."""
_FUNCTION_NAME = re.compile(r"^FunctionDef\(name='[^']*',")

Meaning = Hashable | None


class _HasName(Protocol):
    @property
    def name(self) -> str: ...


Definition = TypeVar("Definition", bound=_HasName)


def entity_meaning(entity: EntityDefinition) -> Meaning:
    """Its key."""
    return entity.key, entity.key_kind


def source_meaning(source: SourceDefinition) -> Meaning:
    """Everything but its words."""
    columns, mapped = tuple(sorted(source.columns.items())), tuple(sorted(source.mapped.items()))
    return source.kind, columns, mapped, source.timestamp_field, source.created_field, source.topic, source.path


def service_meaning(service: ServiceDefinition) -> Meaning:
    """What it gives, in which order."""
    return service.features, tuple(sorted(service.called.items()))


def code_meaning(view: ViewDefinition) -> str:
    """Its function, however that is called."""
    return _FUNCTION_NAME.sub("FunctionDef(", view.code)


def feature_meanings(view: ViewDefinition, source: SourceDefinition | None) -> dict[str, Meaning]:
    """The meaning of each feature by its name; None for one that is known by its name alone."""
    given = outputs(view.code_text) if view.code_text else {}
    stored = {used: column for column, used in source.mapped.items()} if source is not None else {}
    return {feature.name: _feature_meaning(view, feature, given, stored) for feature in view.features}


def _feature_meaning(
    view: ViewDefinition, feature: FeatureDefinition, given: Mapping[str, str] | None, stored: Mapping[str, str]
) -> Meaning:
    if feature.window is not None:
        window = feature.window
        computed = code_meaning(view) if given is None else given.get(window.column, window.column)
        return feature.kind, window.column, computed, window.function, window.length_ms, window.hop_ms
    if view.kind == "on_demand":
        return None if given is None or feature.name not in given else (feature.kind, given[feature.name])
    return feature.kind, stored.get(feature.name, feature.name)


def renamed(
    old: Iterable[Definition], new: Iterable[Definition], meaning: Callable[[Definition], Meaning]
) -> dict[str, str]:
    """Old name → new name, of what only one version has and means the same in both. What could be several is none."""
    before, after = {one.name: one for one in old}, {one.name: one for one in new}
    gone = {name: meaning(one) for name, one in before.items() if name not in after}
    come = {name: meaning(one) for name, one in after.items() if name not in before}
    counts = Counter(gone.values()) + Counter(come.values())
    return {
        was: name
        for was, one in gone.items()
        for name, other in come.items()
        if one is not None and one == other and counts[one] == 2
    }


def renamed_views(
    old: Iterable[ViewDefinition],
    new: Iterable[ViewDefinition],
    alike: Callable[[ViewDefinition, ViewDefinition], float],
) -> dict[str, str]:
    """Old name → new name, of views of which most is alike, 0 to 1, and that have no second such counterpart."""
    before, after = {view.name: view for view in old}, {view.name: view for view in new}
    pairs = [
        (was, name)
        for was in before.keys() - after.keys()
        for name in after.keys() - before.keys()
        if alike(before[was], after[name]) > MOST
    ]
    counts = Counter(was for was, _ in pairs), Counter(name for _, name in pairs)
    return {was: name for was, name in sorted(pairs) if counts[0][was] == counts[1][name] == 1}
