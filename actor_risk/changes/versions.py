"""Both versions side by side: what is read by whom, what was renamed, what a code or a waiver can be about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from actor_risk.changes.described import (
    EntityDefinition,
    FeatureDefinition,
    RepoDefinition,
    ServedModel,
    ServiceDefinition,
    SourceDefinition,
    ViewDefinition,
)
from actor_risk.changes.functions import changed_outputs
from actor_risk.changes.plan import Change, Kind
from actor_risk.changes.readers import Readers, version_of
from actor_risk.changes.wording import length

Definition = EntityDefinition | SourceDefinition | ViewDefinition | ServiceDefinition

EVENT_COLUMNS = ("event_id", "event_time")
"""Whatever these say, every window is made of it."""


@dataclass(frozen=True)
class Versions:
    """The old and the new version, the changes between them, and the models in use."""

    old: RepoDefinition
    new: RepoDefinition
    changes: tuple[Change, ...] = ()
    models: tuple[ServedModel, ...] = ()

    @cached_property
    def renames(self) -> Mapping[tuple[Kind, str], str]:
        """(kind, old name) → new name."""
        return {(change.kind, change.was): change.name for change in self.changes if change.what == "renamed"}

    @cached_property
    def _old_names(self) -> Mapping[tuple[Kind, str], str]:
        return {(kind, new): old for (kind, old), new in self.renames.items()}

    def old_view(self, name: str) -> ViewDefinition | None:
        """The old form of the view that now has that name."""
        return self.old.view(self._old_names.get(("view", name), name))

    def old_source(self, name: str) -> SourceDefinition | None:
        """The old form of the source that now has that name."""
        return self.old.source(self._old_names.get(("source", name), name))

    def old_name(self, kind: Kind, name: str) -> str:
        """How the definition of that name was called."""
        return self._old_names.get((kind, name), name)

    def old_feature(self, view: str, name: str) -> FeatureDefinition | None:
        """The old form of the feature that `view` now has under that name."""
        before = self.old_view(view)
        was = self._old_names.get(("feature", f"{view}:{name}"), f"{view}:{name}").partition(":")[2]
        return before.feature(was) if before is not None else None

    @cached_property
    def readers(self) -> Readers:
        """Who reads what of the old version, as findings name them."""
        return Readers(self.old, self.models, "service {}".format, _model_text)

    def readers_of_view(self, name: str) -> tuple[str, ...]:
        """Who reads a feature of that view of the old version."""
        return self.readers.of_view(name)

    @cached_property
    def served_views(self) -> tuple[ViewDefinition, ...]:
        """The views of the old version that somebody reads a feature of."""
        return tuple(view for view in self.old.views if self.readers_of_view(view.name))

    def served_features(self, view: ViewDefinition) -> tuple[FeatureDefinition, ...]:
        """The features of a view of the old version that somebody reads."""
        return tuple(one for one in view.features if self.readers.of_feature(f"{view.name}:{one.name}"))


def _model_text(model: ServedModel) -> str:
    called = ", ".join(model.aliases)
    return f"model {version_of(model)}" + (f" ({called})" if called else "")


def entities_of(repo: RepoDefinition) -> Mapping[str, EntityDefinition]:
    """The entities by name."""
    return {entity.name: entity for entity in repo.entities}


def services_of(repo: RepoDefinition) -> Mapping[str, ServiceDefinition]:
    """The services by name."""
    return {service.name: service for service in repo.services}


def definitions(repo: RepoDefinition) -> Iterator[tuple[Kind, Definition]]:
    """Every definition but features, with its kind."""
    for entity in repo.entities:
        yield "entity", entity
    for source in repo.sources:
        yield "source", source
    for view in repo.views:
        yield "view", view
    for service in repo.services:
        yield "service", service


def features_of(repo: RepoDefinition) -> Iterator[tuple[ViewDefinition, FeatureDefinition]]:
    """Every feature with its view."""
    return ((view, feature) for view in repo.views for feature in view.features)


def code_concerns(old: ViewDefinition, new: ViewDefinition, feature: FeatureDefinition) -> bool:
    """Whether the functions of both versions compute what the feature rests on otherwise.

    It does when that cannot be told.
    """
    if old.code == new.code:
        return False
    changed = changed_outputs(old.code_text, new.code_text)
    if changed is None or changed & {*old.keys, *EVENT_COLUMNS, old.timestamp_field}:
        return True
    return (feature.window.column if feature.window is not None else feature.name) in changed


def feature_differences(old: ViewDefinition, new: ViewDefinition, name: str, *, code: bool = True) -> tuple[str, ...]:
    """How the meaning of a feature that both views have differs, in words; nothing where it does not.

    code: whether the views' functions are looked at.
    """
    before, after = old.feature(name), new.feature(name)
    if before is None or after is None:
        return ()
    found = [f"type: {before.kind} → {after.kind}"] if before.kind != after.kind else []
    one, other = before.window, after.window
    if one is not None and other is not None:
        pairs = (
            ("column", one.column, other.column),
            ("function", one.function, other.function),
            ("window", length(one.length_ms), length(other.length_ms)),
            ("hop", length(one.hop_ms), length(other.hop_ms)),
        )
        found += [f"{what}: {was} → {now}" for what, was, now in pairs if was != now]
        if one.length_ms != other.length_ms:
            found = [text for text in found if not text.startswith("hop")]
    elif one is not other:
        found.append("it is windowed now" if other is not None else "it is windowed no longer")
    if code and code_concerns(old, new, after):
        found.append("its function computes it otherwise")
    return tuple(found)
