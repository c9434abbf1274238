"""What differs between two versions, by meaning: a comment, another layout or another order of files is no change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TypeVar

from actor_risk.changes.described import (
    EntityDefinition,
    FeatureDefinition,
    Named,
    RepoDefinition,
    ServedModel,
    ServiceDefinition,
    SourceDefinition,
    ViewDefinition,
)
from actor_risk.changes.functions import changed_outputs, outputs
from actor_risk.changes.meanings import (
    code_meaning,
    entity_meaning,
    feature_meanings,
    renamed,
    renamed_views,
    service_meaning,
    source_meaning,
)
from actor_risk.changes.plan import Change, Kind
from actor_risk.changes.readers import Readers
from actor_risk.changes.versions import EVENT_COLUMNS
from actor_risk.changes.wording import length

T = TypeVar("T", EntityDefinition, SourceDefinition, ViewDefinition, FeatureDefinition, ServiceDefinition)

_KINDS: tuple[Kind, ...] = ("entity", "source", "view", "feature", "service")
_SHOWN = 8


def changes(old: RepoDefinition, new: RepoDefinition, models: tuple[ServedModel, ...] = ()) -> tuple[Change, ...]:
    """Everything that was added, changed, removed or renamed, by kind and name. models: those in use."""
    return _Comparison(old, new, models).changes()


class _Comparison:
    """Both versions, and what of the one is what of the other."""

    def __init__(self, old: RepoDefinition, new: RepoDefinition, models: tuple[ServedModel, ...]) -> None:
        self._old, self._new = old, new
        self._readers = Readers(old, models)
        self.entities = renamed(old.entities, new.entities, entity_meaning)
        self.sources = renamed(old.sources, new.sources, source_meaning)
        self.views = renamed_views(old.views, new.views, self._alike)

    def changes(self) -> tuple[Change, ...]:
        """All of them."""
        found = [
            *self._entities(),
            *self._sources(),
            *self._views(),
            *self._stored_features,
            *self._on_demand_features,
            *self._services(),
        ]
        return tuple(sorted(found, key=lambda change: (_KINDS.index(change.kind), change.name)))

    # Entities and sources

    def _entities(self) -> Iterator[Change]:
        for old, new in _pairs(self._old.entities, self._new.entities, self.entities):
            details = _differing(("key", old.key, new.key), ("type", old.key_kind, new.key_kind)) if old and new else []
            yield from self._change("entity", old, new, details)

    def _sources(self) -> Iterator[Change]:
        for old, new in _pairs(self._old.sources, self._new.sources, self.sources):
            if old is None or new is None:
                yield from self._change("source", old, new, [])
                continue
            added = [f"column {name} added" for name in new.columns if name not in old.columns]
            yield from self._change("source", old, new, _source_details(old, new), added)

    # Views

    def _pairs_of_views(self) -> Iterator[tuple[ViewDefinition | None, ViewDefinition | None]]:
        return _pairs(self._old.views, self._new.views, self.views)

    def _views(self) -> Iterator[Change]:
        for old, new in self._pairs_of_views():
            if old is None or new is None:
                features = (old or new or _NO_VIEW).features
                yield from self._change("view", old, new, [f"features: {_some(one.name for one in features)}"])
                continue
            details = self._view_details(old, new)
            order = _order_details(old, new)
            if old.fingerprint != new.fingerprint and not details:
                details = ["its rows are laid out anew", *order]
                order = []
            yield from self._change("view", old, new, details, order)

    def _view_details(self, old: ViewDefinition, new: ViewDefinition) -> list[str]:
        details = _differing(
            ("kind", old.kind, new.kind),
            ("entities", _some(self._now(self.entities, old.entities)), _some(new.entities)),
            ("keys", _pairs_text(old.keys), _pairs_text(new.keys)),
            ("source", self.sources.get(old.source, old.source), new.source),
            ("timestamp", old.timestamp_field, new.timestamp_field),
            ("ttl", _span(old.ttl_ms), _span(new.ttl_ms)),
        )
        if code_meaning(old) != code_meaning(new):
            details.append("its function")
        return details

    def _alike(self, old: ViewDefinition, new: ViewDefinition) -> float:
        """The share of features that both have and that mean the same, whatever they are called; 0 for other keys."""
        source = self.sources.get(old.source, old.source)
        if (old.kind, old.keys, source) != (new.kind, new.keys, new.source):
            return 0.0
        before, after = self._meanings(old, self._old), self._meanings(new, self._new)
        same_name = sum(name in before and before[name] == meaning for name, meaning in after.items())
        same = sum(meaning is not None and meaning in before.values() for meaning in after.values())
        return max(same, same_name) / max(len(before), len(after), 1)

    @staticmethod
    def _meanings(view: ViewDefinition, repo: RepoDefinition) -> dict[str, object]:
        return dict(feature_meanings(view, repo.source(view.source)))

    # Features

    @cached_property
    def _stored_features(self) -> list[Change]:
        return [change for old, new in self._pairs_of_views() for change in self._features(old, new, "stored")]

    @cached_property
    def _on_demand_features(self) -> list[Change]:
        return [change for old, new in self._pairs_of_views() for change in self._features(old, new, "on_demand")]

    def _features(self, old: ViewDefinition | None, new: ViewDefinition | None, kind: str) -> Iterator[Change]:
        """Of a view that both versions have; those of a view that one has alone are told with it."""
        if old is None or new is None or (new.kind == "on_demand") != (kind == "on_demand"):
            return
        before, after = self._meanings(old, self._old), self._meanings(new, self._new)
        renames = renamed(old.features, new.features, lambda one: (before if one in old.features else after)[one.name])
        causes = self._causes(old, new)
        for one, other in _pairs(old.features, new.features, renames):
            if one is None or other is None or one.name != other.name:
                yield self._feature_change(old, new, one, other, [])
                continue
            details = [*_feature_details(one, other), *causes.get(one.name, ())]
            if details or _word_details(one, other):
                yield self._feature_change(old, new, one, other, details)

    def _feature_change(
        self,
        old: ViewDefinition,
        new: ViewDefinition,
        one: FeatureDefinition | None,
        other: FeatureDefinition | None,
        details: list[str],
    ) -> Change:
        was = f"{old.name}:{one.name}" if one is not None else ""
        name = f"{new.name}:{other.name}" if other is not None else was
        is_renamed = one is not None and other is not None and one.name != other.name
        what = "added" if one is None else "removed" if other is None else "renamed" if is_renamed else "changed"
        words = _word_details(one, other) if one is not None and other is not None else []
        return Change(
            what=what,  # type: ignore[arg-type]  # one of them
            kind="feature",
            name=name,
            was=was if is_renamed else "",
            details=tuple(dict.fromkeys([*details, *words])),
            served_by=self._readers.of_feature(was),
            meaning=bool(details) or what != "changed",
            place=new.place if other is not None else old.place,
        )

    def _causes(self, old: ViewDefinition, new: ViewDefinition) -> dict[str, list[str]]:
        """Why features that say nothing else than before have other values, by their new names."""
        every = [
            cause
            for cause, differs in (
                ("its key", old.keys != new.keys),
                (
                    f"source: {old.source} → {new.source}",
                    self.sources.get(old.source, old.source) != new.source,
                ),
                ("its timestamp", old.timestamp_field != new.timestamp_field),
            )
            if differs
        ]
        found: dict[str, list[str]] = {feature.name: list(every) for feature in new.features}
        changed = _changed_columns(old, new)
        from_source = self._changed_in_source(old, new)
        given = outputs(new.code_text) if new.code_text else {}
        for feature in new.features:
            column = feature.window.column if feature.window is not None else feature.name
            if changed is None or column in changed or changed & {*new.keys, *EVENT_COLUMNS, new.timestamp_field}:
                found[feature.name].append("its function")
            text = _text_of(column, given, new)
            touched = [name for name in from_source if name == "*" or name == column or f"'{name}'" in text]
            found[feature.name] += [f"its source {new.source}" for _ in touched[:1]]
            found[feature.name] += [f"its input {ref}" for ref in self._changed_inputs(new, text)]
        return found

    def _changed_in_source(self, old: ViewDefinition, new: ViewDefinition) -> list[str]:
        """The columns of the view's source, as they are used, that hold something else now; `*` for all of them."""
        before, after = self._old.source(old.source), self._new.source(new.source)
        if before is None or after is None:
            return []
        if (before.kind, before.topic, before.timestamp_field) != (after.kind, after.topic, after.timestamp_field):
            return ["*"]
        columns = [name for name, kind in before.columns.items() if after.columns.get(name) != kind]
        stored, now = ({used: column for column, used in one.mapped.items()} for one in (before, after))
        return columns + [used for used in {**stored, **now} if stored.get(used, used) != now.get(used, used)]

    def _changed_inputs(self, view: ViewDefinition, text: str) -> list[str]:
        if view.kind != "on_demand":
            return []
        moved = {change.name for change in self._stored_features if change.what == "changed" and change.meaning}
        return [ref for ref in view.inputs if ref in moved and f"'{ref.partition(':')[2]}'" in text]

    # Services

    def _services(self) -> Iterator[Change]:
        feature_names = self._renamed_refs()
        renames = renamed(self._old.services, self._new.services, service_meaning)
        for old, new in _pairs(self._old.services, self._new.services, renames):
            if old is None or new is None:
                features = (old or new or _NO_SERVICE).features
                yield from self._change("service", old, new, [f"{len(features)} features"])
                continue
            yield from self._change("service", old, new, self._service_details(old, new, feature_names))

    def _service_details(self, old: ServiceDefinition, new: ServiceDefinition, renames: Mapping[str, str]) -> list[str]:
        before = [renames.get(ref, ref) for ref in old.features]
        details = [f"{ref} → {renames[ref]}" for ref in old.features if renames.get(ref) in new.features]
        details += [f"+ {ref}" for ref in new.features if ref not in before]
        details += [f"− {ref}" for ref in before if ref not in new.features]
        kept = [ref for ref in before if ref in new.features]
        if kept != [ref for ref in new.features if ref in before]:
            details.append("order of its features")
        moved = {change.name for change in self._all_features() if change.what == "changed" and change.meaning}
        own = [f"{new.called.get(view, view)}:{name}" for view, _, name in (ref.partition(":") for ref in kept)]
        others = [ref for ref in own if ref in moved]
        if others:
            details.append(f"other values: {_some(others)}")
        if not details and old.fingerprint != new.fingerprint:
            details.append("what its views compute")
        return details

    def _all_features(self) -> Iterator[Change]:
        yield from self._stored_features
        yield from self._on_demand_features

    def _renamed_refs(self) -> dict[str, str]:
        """`view:feature` of the old version → of the new one, where that is another."""
        found = {change.was: change.name for change in self._all_features() if change.what == "renamed"}
        for was, name in self.views.items():
            old = self._old.view(was)
            for feature in old.features if old is not None else ():
                found.setdefault(f"{was}:{feature.name}", f"{name}:{feature.name}")
        return found

    # All kinds

    def _change(
        self, kind: Kind, old: Named | None, new: Named | None, details: list[str], harmless: Iterable[str] = ()
    ) -> Iterator[Change]:
        """The change of one definition, if there is any. harmless: details that change no value."""
        one = new or old
        if one is None:
            return
        is_renamed = old is not None and new is not None and old.name != new.name
        what = "added" if old is None else "removed" if new is None else "renamed" if is_renamed else "changed"
        words = [*harmless, *(_word_details(old, new) if old is not None and new is not None else ())]
        if what == "changed" and not details and not words:
            return
        yield Change(
            what=what,  # type: ignore[arg-type]  # one of them
            kind=kind,
            name=one.name,
            was=old.name if old is not None and is_renamed else "",
            details=(*details, *words),
            served_by=self._served_by(kind, old.name) if old is not None else (),
            meaning=bool(details) or what != "changed",
            place=one.place,
        )

    def _served_by(self, kind: Kind, name: str) -> tuple[str, ...]:
        readers = self._readers
        of = {
            "entity": readers.of_entity,
            "source": readers.of_source,
            "view": readers.of_view,
            "service": readers.of_service,
        }
        return of[kind](name)

    @staticmethod
    def _now(renames: Mapping[str, str], names: Iterable[str]) -> tuple[str, ...]:
        return tuple(renames.get(name, name) for name in names)


_NO_VIEW = ViewDefinition(name="", kind="batch")
_NO_SERVICE = ServiceDefinition(name="", features=(), fingerprint="")


def _pairs(old: Iterable[T], new: Iterable[T], renames: Mapping[str, str]) -> Iterator[tuple[T | None, T | None]]:
    """Each definition of either version with what it is in the other, None where it is nothing."""
    before, after = {one.name: one for one in old}, {one.name: one for one in new}
    for name, one in before.items():
        yield one, after.get(renames.get(name, name))
    for name, one in after.items():
        if name not in before and name not in renames.values():
            yield None, one


def _changed_columns(old: ViewDefinition, new: ViewDefinition) -> frozenset[str] | None:
    """The columns that the views' functions give otherwise; None where that cannot be told."""
    if code_meaning(old) == code_meaning(new):
        return frozenset()
    return changed_outputs(old.code_text, new.code_text)


def _text_of(column: str, given: Mapping[str, str] | None, view: ViewDefinition) -> str:
    """How the column is computed; all of the view's function where that cannot be told apart."""
    if given is None:
        return view.code
    return given.get(column, "")


def _source_details(old: SourceDefinition, new: SourceDefinition) -> list[str]:
    details = _differing(
        ("kind", old.kind, new.kind),
        ("topic", old.topic, new.topic),
        ("path", old.path, new.path),
        ("timestamp", old.timestamp_field, new.timestamp_field),
        ("created", old.created_field, new.created_field),
    )
    for name, kind in old.columns.items():
        if name not in new.columns:
            details.append(f"column {name} removed")
        elif new.columns[name] != kind:
            details.append(f"column {name}: {kind} → {new.columns[name]}")
    for name in {**old.mapped, **new.mapped}:
        if old.mapped.get(name) != new.mapped.get(name):
            details.append(f"column {name} is used as: {old.mapped.get(name, name)} → {new.mapped.get(name, name)}")
    return details


def _feature_details(old: FeatureDefinition, new: FeatureDefinition) -> list[str]:
    details = _differing(("type", old.kind, new.kind))
    one, other = old.window, new.window
    if one is None or other is None:
        return details + (["windowed" if other is not None else "no longer windowed"] if one is not other else [])
    details += _differing(
        ("column", one.column, other.column),
        ("function", one.function, other.function),
        ("window", length(one.length_ms), length(other.length_ms)),
    )
    if one.length_ms == other.length_ms:  # the hop goes with the window
        details += _differing(("hop", _span(one.hop_ms), _span(other.hop_ms)))
    return details


def _order_details(old: ViewDefinition, new: ViewDefinition) -> list[str]:
    before, after = ([one.name for one in view.features] for view in (old, new))
    kept = [name for name in before if name in after]
    return ["order of its features"] if kept != [name for name in after if name in before] else []


def _word_details(old: Named | FeatureDefinition, new: Named | FeatureDefinition) -> list[str]:
    """What is said of it: changes no value."""
    details = ["description"] if old.description != new.description else []
    if isinstance(old, Named) and isinstance(new, Named):
        details += _differing(("owner", old.owner, new.owner))
    for tag in {**old.tags, **new.tags}:
        details += _differing((f"tag {tag}", old.tags.get(tag, ""), new.tags.get(tag, "")))
    return details


def _differing(*parts: tuple[str, str, str]) -> list[str]:
    return [f"{what}: {old or 'none'} → {new or 'none'}" for what, old, new in parts if old != new]


def _span(span_ms: int) -> str:
    return length(span_ms) if span_ms else ""


def _pairs_text(pairs: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in pairs.items())


def _some(names: Iterable[str]) -> str:
    every = list(names)
    more = f", and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more
