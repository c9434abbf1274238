"""Who reads what of a version: the services, and the versions of models that some alias or rollout names."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from actor_risk.changes.described import RepoDefinition, ServedModel
from actor_risk.changes.versions import inputs_used, stored_refs


class Readers:
    """Services by name and models as `model@version`, services first. What a function of an on-demand view names is
    read by whoever reads what it gives."""

    def __init__(self, repo: RepoDefinition, models: tuple[ServedModel, ...]) -> None:
        self._repo = repo
        self._models = models

    def of_feature(self, ref: str) -> tuple[str, ...]:
        """Of `view:feature`."""
        return self._in_order(self._found.get(ref, ()))

    def of_view(self, name: str) -> tuple[str, ...]:
        """Of any feature of the view."""
        view = self._repo.view(name)
        features = view.features if view is not None else ()
        return self._in_order(one for feature in features for one in self._found.get(f"{name}:{feature.name}", ()))

    def of_source(self, name: str) -> tuple[str, ...]:
        """Of any view over the source, or that a request's fields of it are given to."""
        source = self._repo.source(name)
        asked = set(source.columns) if source is not None and source.kind == "request" else set()
        views = [view.name for view in self._repo.views if view.source == name or asked.intersection(view.requests)]
        return self._in_order(one for view in views for one in self.of_view(view))

    def of_entity(self, name: str) -> tuple[str, ...]:
        """Of any view of the entity."""
        views = [view.name for view in self._repo.views if name in view.entities]
        return self._in_order(one for view in views for one in self.of_view(view))

    def of_service(self, name: str) -> tuple[str, ...]:
        """The models that were trained on the service."""
        return self._in_order(_called(model) for model in self._models if model.service == name)

    @cached_property
    def _found(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        services = {service.name: service for service in self._repo.services}
        for service in self._repo.services:
            for ref in stored_refs(service, service.features):
                found.setdefault(ref, set()).add(service.name)
        for model in self._models:
            for ref in stored_refs(services.get(model.service), model.features):
                found.setdefault(ref, set()).add(_called(model))
        for view in self._repo.views:
            readers = {one for feature in view.features for one in found.get(f"{view.name}:{feature.name}", ())}
            for ref in inputs_used(view):
                found.setdefault(ref, set()).update(readers)
        return found

    @cached_property
    def _places(self) -> dict[str, int]:
        names = [*(service.name for service in self._repo.services), *map(_called, self._models)]
        return {name: place for place, name in enumerate(names)}

    def _in_order(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(set(names), key=lambda name: self._places[name]))


def _called(model: ServedModel) -> str:
    return f"{model.model}@{model.version}"
