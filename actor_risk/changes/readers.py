"""Who reads what of a version: the services, and the versions of models that some alias or rollout names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property

from actor_risk.changes.described import RepoDefinition, ServedModel, ServiceDefinition, ViewDefinition
from actor_risk.changes.functions import words_in


def version_of(model: ServedModel) -> str:
    """`model@version`."""
    return f"{model.model}@{model.version}"


class Readers:
    """Services, then models, by what they are called. What a function of an on-demand view names is read by whoever
    reads what it gives."""

    def __init__(
        self,
        repo: RepoDefinition,
        models: tuple[ServedModel, ...],
        service_called: Callable[[str], str] = str,
        model_called: Callable[[ServedModel], str] = version_of,
    ) -> None:
        self._repo = repo
        self._services = {service.name: service_called(service.name) for service in repo.services}
        self._models = [(model, model_called(model)) for model in models]

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
        return self._in_order(called for model, called in self._models if model.service == name)

    @cached_property
    def _found(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        services = {service.name: service for service in self._repo.services}
        for service in self._repo.services:
            for ref in stored_refs(service, service.features):
                found.setdefault(ref, set()).add(self._services[service.name])
        for model, called in self._models:
            for ref in stored_refs(services.get(model.service), model.features):
                found.setdefault(ref, set()).add(called)
        for view in self._repo.views:
            readers = {one for feature in view.features for one in found.get(f"{view.name}:{feature.name}", ())}
            for ref in inputs_used(view) if readers else ():
                found.setdefault(ref, set()).update(readers)
        return found

    @cached_property
    def _places(self) -> dict[str, int]:
        names = [*self._services.values(), *(called for _, called in self._models)]
        return {name: place for place, name in enumerate(names)}

    def _in_order(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(set(names), key=lambda name: self._places[name]))


def stored_refs(service: ServiceDefinition | None, refs: tuple[str, ...]) -> tuple[str, ...]:
    """References as views are called, where the service calls some of them otherwise."""
    called = service.called if service is not None else {}
    if not called:
        return refs
    parts = (ref.partition(":") for ref in refs)
    return tuple(f"{called.get(view, view)}:{name}" for view, _, name in parts)


def inputs_used(view: ViewDefinition) -> tuple[str, ...]:
    """The inputs, `view:feature`, that the function of an on-demand view names; all of them where it has no text."""
    named = words_in(view.code_text)
    return tuple(ref for ref in view.inputs if not named or ref.partition(":")[2] in named)
