"""What a change takes away from those who read the old version: services, and models in use.

One root cause gives one finding. Whatever a finding about an entity, a view or a source explains is not told again for
each feature of it, nor for the services that read it.
"""

from __future__ import annotations

from collections.abc import Iterator

from actor_risk.changes.checks.breaks_sources import sources_changed
from actor_risk.changes.described import EntityDefinition, FeatureDefinition, ServiceDefinition, ViewDefinition
from actor_risk.changes.findings import Finding
from actor_risk.changes.readers import stored_refs, version_of
from actor_risk.changes.values import Costs
from actor_risk.changes.versions import (
    Versions,
    entities_of,
    feature_differences,
    services_of,
)
from actor_risk.changes.wording import beside, length, lines_of, listed, next_version, spoken
from actor_risk.reporting.words import counted


def find_breaks(versions: Versions, costs: Costs | None) -> Iterator[Finding]:
    """AR101 to AR108."""
    explained: set[str] = set()  # views of the old version that an error is about already
    for check in (_entities, _renamed_views, _removed_views, _in_place, sources_changed, _removed_features):
        for views, finding in list(check(versions, frozenset(explained))):
            explained.update(views)
            yield finding
    yield from _sooner(versions)
    yield from _refilled(versions, frozenset(explained), costs)
    yield from _services_without_model(versions)
    yield from _services_of_models(versions, frozenset(explained))


Explaining = Iterator[tuple[frozenset[str], Finding]]
"""A finding, and the views of the old version whose further troubles it explains."""


def _entities(versions: Versions, _: frozenset[str]) -> Explaining:
    now = entities_of(versions.new)
    told: set[str] = set()
    for entity in versions.old.entities:
        views = [
            view.name
            for view in versions.served_views
            if entity.name in view.entities and _now(versions, view.name) is not None
        ]
        after = now.get(entity.name)
        renamed = now.get(versions.renames.get(("entity", entity.name), ""))
        other = after or renamed
        if views and not (after and _same_key(entity, after)):
            told.update(views)
            yield frozenset(views), _entity_finding(versions, entity, other, views)
    for view in versions.served_views:
        new = _now(versions, view.name)
        if view.name not in told and new is not None and new.kind != "on_demand" and view.keys != new.keys:
            yield frozenset({view.name}), _rekeyed_view(versions, view, new)


def _same_key(one: EntityDefinition, other: EntityDefinition) -> bool:
    return (one.key, one.key_kind) == (other.key, other.key_kind)


def _entity_finding(
    versions: Versions, entity: EntityDefinition, other: EntityDefinition | None, views: list[str]
) -> Finding:
    readers = spoken(tuple(dict.fromkeys(one for view in views for one in versions.readers_of_view(view))))
    if other is None:
        what = f"entity `{entity.name}` is removed"
        effect = f"rows lie under its key `{entity.key}`, and nothing finds them any more"
    elif other.name == entity.name:
        what = (
            f"entity `{entity.name}` was keyed by `{entity.key}` ({entity.key_kind}), and is keyed by `{other.key}` "
            f"({other.key_kind})"
        )
        effect = "stored rows lie under the old key, and requests name it: neither finds the other"
    elif _same_key(entity, other):
        what = f"entity `{entity.name}` is renamed to `{other.name}`"
        effect = (
            f"the join key stays `{other.key}`, so rows can still be read, but whatever names the entity "
            "(other repositories, lineage, Feast's own calls) no longer finds it"
        )
    else:
        what = f"entity `{entity.name}` is renamed to `{other.name}`, and its key `{entity.key}` to `{other.key}`"
        effect = "stored rows lie under the old key, and requests name it: neither finds the other"
    return Finding(
        code="AR103",
        subject=entity.name,
        message=f"{what}: {effect}. Its views {listed(views)} are read by {readers}.",
        instead=(
            f'Keep Entity(name="{entity.name}", join_keys=["{entity.key}"], value_type=ValueType.{entity.key_kind}). '
            "For another key add a new entity, new views on it and a new service; words belong in its description."
        ),
        place=other.place if other is not None else entity.place,
    )


def _rekeyed_view(versions: Versions, old: ViewDefinition, new: ViewDefinition) -> Finding:
    return Finding(
        code="AR103",
        subject=new.name,
        message=(
            f"view `{old.name}` was keyed by {listed(old.keys)}, and is keyed by {listed(new.keys)}: its rows are not "
            f"found any more, and requests lack the key. It is read by {spoken(versions.readers_of_view(old.name))}."
        ),
        instead=(
            f"Leave `{old.name}` on {listed(old.entities)}, and write a new view `{next_version(old.name)}` on "
            f"{listed(new.entities)}."
        ),
        place=new.place,
    )


def _renamed_views(versions: Versions, explained: frozenset[str]) -> Explaining:
    for view in versions.served_views:
        name = versions.renames.get(("view", view.name))
        if name is None or view.name in explained or versions.new.view(view.name) is not None:
            continue
        new = versions.new.view(name)
        yield (
            frozenset({view.name}),
            Finding(
                code="AR106",
                subject=name,
                message=(
                    f"view `{view.name}` is renamed to `{name}`: its rows lie under the old name, so all its features "
                    f"are NOT_FOUND under the new one, and {spoken(versions.readers_of_view(view.name))} asks for the "
                    "old."
                ),
                instead=(
                    f"Keep the name `{view.name}`. If it must go: leave it, add `{name}` beside it, fill it "
                    f"(actor-risk backfill --view {name}), move a new service to it, and remove the old one last."
                ),
                place=new.place if new is not None else view.place,
            ),
        )


def _removed_views(versions: Versions, explained: frozenset[str]) -> Explaining:
    for view in versions.served_views:
        if _now(versions, view.name) is None and view.name not in explained:
            served = [feature.name for feature in versions.served_features(view)]
            yield (
                frozenset({view.name}),
                Finding(
                    code="AR101",
                    subject=view.name,
                    message=(
                        f"view `{view.name}` is removed, with {counted(len(served), 'served feature')}: "
                        f"{listed(served)}. Read by {spoken(versions.readers_of_view(view.name))}."
                    ),
                    instead=_remove_last(view.name),
                    place=view.place,
                ),
            )


def _removed_features(versions: Versions, _: frozenset[str]) -> Explaining:
    for view in versions.served_views:
        new = _now(versions, view.name)
        for feature in versions.served_features(view):
            if new is not None and new.feature(feature.name) is None:
                yield frozenset({view.name}), _removed_feature(versions, view, new, feature)


def _removed_feature(
    versions: Versions, view: ViewDefinition, new: ViewDefinition, feature: FeatureDefinition
) -> Finding:
    ref = f"{view.name}:{feature.name}"
    renamed = versions.renames.get(("feature", ref), "")
    what = f"renamed to `{renamed.partition(':')[2]}`" if renamed else "removed"
    return Finding(
        code="AR101",
        subject=ref,
        message=f"`{feature.name}` of `{view.name}` is {what}. Read by {spoken(versions.readers.of_feature(ref))}.",
        instead=f"Keep it until nobody reads it:\n{lines_of(feature, feature.name)}\n{_remove_last(feature.name)}",
        place=new.place,
    )


def _remove_last(name: str) -> str:
    return (
        f"To be rid of `{name}`: add a new service without it, train and roll out a model that reads that, remove the "
        "old service, and this last."
    )


def _in_place(versions: Versions, explained: frozenset[str]) -> Explaining:
    for view in versions.served_views:
        new = _now(versions, view.name)
        if new is None:
            continue
        if view.kind != new.kind:
            yield frozenset({view.name}), _other_kind(versions, view, new)
            continue
        alike: dict[tuple[str, ...], list[FeatureDefinition]] = {}
        for feature in versions.served_features(view):
            # A function that gives another key is another function, and its key is told of already.
            differences = feature_differences(view, new, feature.name, code=view.name not in explained)
            if differences:
                alike.setdefault(differences, []).append(feature)
        for differences, features in alike.items():
            yield frozenset({view.name}), _changed_features(versions, view, new, differences, features)


def _other_kind(versions: Versions, view: ViewDefinition, new: ViewDefinition) -> Finding:
    return Finding(
        code="AR102",
        subject=view.name,
        message=(
            f"`{view.name}` was a {view.kind} view and is a {new.kind} view: its rows mean something else. "
            f"Read by {spoken(versions.readers_of_view(view.name))}."
        ),
        instead=f"Leave `{view.name}` as it was, and write the new one as `{next_version(view.name)}`.",
        place=new.place,
    )


def _changed_features(
    versions: Versions,
    view: ViewDefinition,
    new: ViewDefinition,
    differences: tuple[str, ...],
    features: list[FeatureDefinition],
) -> Finding:
    refs = [f"{view.name}:{feature.name}" for feature in features]
    readers = tuple(dict.fromkeys(reader for ref in refs for reader in versions.readers.of_feature(ref)))
    return Finding(
        code="AR102",
        subject=refs[0] if len(refs) == 1 else view.name,
        message=(
            f"{listed(feature.name for feature in features)} of `{view.name}` "
            f"{'is' if len(features) == 1 else 'are'} changed in place: {'; '.join(differences)}. "
            f"Read by {spoken(readers)}, which would get values of another meaning under the same name."
        ),
        instead=_alternative(view, new, features),
        place=new.place,
    )


def _alternative(view: ViewDefinition, new: ViewDefinition, features: list[FeatureDefinition]) -> str:
    """A view of its own: in the old view, rows of all its features would have to be filled again."""
    lines = [
        lines_of(after, beside(feature.name, feature.window, after.window))
        for feature in features
        if (after := new.feature(feature.name)) is not None
    ]
    what = "put the new one" if len(features) == 1 else "put the new ones"
    return (
        f"Leave {listed(feature.name for feature in features)} of `{view.name}` as it was, and {what} under another "
        f"name into a view of its own, `{next_version(view.name)}`"
        + (", with the new function" if view.code != new.code else "")
        + ":\n"
        + "\n".join(lines[:4])
        + (f"\n… and {len(lines) - 4} more" if len(lines) > 4 else "")
    )


def _sooner(versions: Versions) -> Iterator[Finding]:
    for view in versions.served_views:
        new = _now(versions, view.name)
        if new is None or not new.ttl_ms or not (view.ttl_ms == 0 or new.ttl_ms < view.ttl_ms):
            continue
        longest = max((one.window.length_ms for one in new.features if one.window), default=0)
        shorter = f" That is shorter than its longest window of {length(longest)}." if longest > new.ttl_ms else ""
        was = length(view.ttl_ms) if view.ttl_ms else "never"
        yield Finding(
            code="AR107",
            subject=new.name,
            message=(
                f"features of `{view.name}` expire after {length(new.ttl_ms)} (before: {was}): of actors that were "
                f"quiet for longer, {spoken(versions.readers_of_view(view.name))} gets OUTSIDE_MAX_AGE.{shorter}"
            ),
            instead=(
                f"Keep the TTL of {was}, or waive it with the share of requests that this concerns."
                if view.ttl_ms
                else "Leave the TTL out as before, or waive it with the share of requests that this concerns."
            ),
            place=new.place,
        )


def _refilled(versions: Versions, explained: frozenset[str], costs: Costs | None) -> Iterator[Finding]:
    for view in versions.served_views:
        new = versions.new.view(view.name)
        if new is None or view.name in explained or new.fingerprint in ("", view.fingerprint):
            continue  # without a fingerprint it cannot be computed, which is told by itself
        yield Finding(
            code="AR108",
            subject=view.name,
            message=(
                f"rows of `{view.name}` get another fingerprint ({_why_other_rows(view, new)}): until they are filled "
                f"again, all its features are NOT_FOUND for {spoken(versions.readers_of_view(view.name))}."
            ),
            instead=(
                f"{_backfill(view.name, costs)}\nright after `actor-risk apply`. Without a gap: put what is new into a "
                f"view of its own, such as `{next_version(view.name)}`."
            ),
            place=new.place,
        )


def _why_other_rows(old: ViewDefinition, new: ViewDefinition) -> str:
    before, after = [one.name for one in old.features], [one.name for one in new.features]
    added = [name for name in after if name not in before]
    gone = [name for name in before if name not in after]
    reasons = [f"it has {listed(added)} more"] if added else []
    reasons += [f"it has no {listed(gone)} any more"] if gone else []
    if not reasons and before != after:
        reasons.append("its features stand in another order")
    if old.code != new.code:
        reasons.append("its function is another")
    return "; ".join(reasons) or "its definition is another"


def _backfill(view: str, costs: Costs | None) -> str:
    known = [command for command in (costs.backfill if costs is not None else ()) if view in command.split()]
    return known[0] if known else f"actor-risk backfill --view {view}"


def _services_without_model(versions: Versions) -> Iterator[Finding]:
    now = services_of(versions.new)
    with_model = {model.service for model in versions.models}
    for service in versions.old.services:
        if service.name in with_model:
            continue
        new = now.get(service.name)
        if new is None:
            yield _removed_service(versions, service)
            continue
        gone = [ref for ref in service.features if ref not in new.features and _exists(versions, service, ref)]
        if gone:
            yield Finding(
                code="AR101",
                subject=service.name,
                message=f"service `{service.name}` no longer gives {listed(gone)} to those who read it.",
                instead=f"Keep them, and write a new service `{next_version(service.name)}` without them.",
                place=new.place,
            )


def _removed_service(versions: Versions, service: ServiceDefinition) -> Finding:
    renamed = versions.renames.get(("service", service.name))
    what = f"renamed to `{renamed}`" if renamed else "removed"
    return Finding(
        code="AR101",
        subject=renamed or service.name,
        message=f"service `{service.name}` is {what}: whoever reads its {len(service.features)} features by its name "
        "gets an error.",
        instead=f"Keep `{service.name}` until nobody reads it"
        + (f", with `{renamed}` beside it." if renamed else ": ask its owner, and look at the decision log."),
        place=service.place,
    )


def _exists(versions: Versions, service: ServiceDefinition, ref: str) -> bool:
    """Whether the view still has the feature; where it has not, that is told of the feature."""
    (stored,) = stored_refs(service, (ref,))
    view = versions.new.view(stored.partition(":")[0])
    return view is not None and view.feature(stored.partition(":")[2]) is not None


def _services_of_models(versions: Versions, explained: frozenset[str]) -> Iterator[Finding]:
    before, now = services_of(versions.old), services_of(versions.new)
    models: dict[str, list[str]] = {}
    for model in versions.models:
        old = before.get(model.service)
        new = now.get(model.service)
        was_fit = old is not None and old.fingerprint == model.service_fingerprint
        if was_fit and (new is None or new.fingerprint not in ("", model.service_fingerprint)):
            models.setdefault(model.service, []).append(version_of(model))
    for name, called in models.items():
        why = _why_other_service(versions, before[name], now.get(name), explained)
        if why:
            yield _other_service(before[name], now.get(name), called, why)


def _why_other_service(
    versions: Versions, old: ServiceDefinition, new: ServiceDefinition | None, explained: frozenset[str]
) -> str:
    """Why a model no longer fits; "" where findings about the views that the service reads say so already."""
    if new is None:
        return "the service is removed or renamed"
    added = [ref for ref in new.features if ref not in old.features]
    gone = [ref for ref in old.features if ref not in new.features and _exists(versions, old, ref)]
    both = [ref for ref in old.features if ref in new.features]
    moved = both != [ref for ref in new.features if ref in old.features]
    renamed = {f"{now}:" for (kind, _), now in versions.renames.items() if kind == "view"}
    added = [ref for ref in added if not ref.startswith(tuple(renamed))] if renamed else added
    reasons = [f"it gives {listed(added)} more"] if added else []
    reasons += [f"it no longer gives {listed(gone)}"] if gone else []
    reasons += ["its features stand in another order"] if moved else []
    if reasons:
        return "; ".join(reasons)
    if explained & {*old.reads, *_views_of(old)}:
        return ""
    return "; ".join(_views_behind(versions, old)) or "what it is computed from changed"


def _views_of(service: ServiceDefinition) -> frozenset[str]:
    return frozenset(ref.partition(":")[0] for ref in stored_refs(service, service.features))


def _views_behind(versions: Versions, service: ServiceDefinition) -> Iterator[str]:
    read = {*service.reads, *_views_of(service)}
    for view in versions.old.views:
        new = versions.new.view(view.name)
        if view.name not in read or new is None:
            continue
        if view.kind == "on_demand" and view.code != new.code:
            yield f"the function of `{view.name}` is another"
        elif view.fingerprint != new.fingerprint:
            yield f"rows of `{view.name}` are laid out otherwise ({_why_other_rows(view, new)})"


def _other_service(old: ServiceDefinition, new: ServiceDefinition | None, models: list[str], why: str) -> Finding:
    called = listed(models)
    fingerprints = f" ({old.fingerprint} → {new.fingerprint})" if new is not None else ""
    return Finding(
        code="AR105",
        subject=old.name,
        message=(
            f"service `{old.name}` changes under {called}: {why}. Its fingerprint is another{fingerprints}, so a "
            "server that starts refuses the model; one that runs keeps the old definitions until it starts again."
        ),
        instead=(
            f"Leave `{old.name}` as it is, and write a new service `{next_version(old.name)}` (what is new in views of "
            "their own), apply and fill it, train on it and roll that model out; then remove the old one. Or waive it "
            "with a date on which servers may be without this model: apply, fill, train and publish in one go."
        ),
        place=new.place if new is not None else old.place,
    )


def _now(versions: Versions, name: str) -> ViewDefinition | None:
    """What has become of the view of the old version."""
    return versions.new.view(name) or versions.new.view(versions.renames.get(("view", name), ""))
