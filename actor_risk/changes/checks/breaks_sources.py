"""AR104: the source of served features is changed in place."""

from __future__ import annotations

from collections.abc import Iterator

from actor_risk.changes.described import SourceDefinition, ViewDefinition
from actor_risk.changes.findings import Finding
from actor_risk.changes.reads import columns_read
from actor_risk.changes.versions import Versions
from actor_risk.changes.wording import listed, next_version, spoken


def sources_changed(versions: Versions, _: frozenset[str]) -> Iterator[tuple[frozenset[str], Finding]]:
    """One finding for each source (and the way in which its views read it), with the views that it concerns."""
    alike: dict[tuple[str, tuple[str, ...]], list[tuple[ViewDefinition, ViewDefinition]]] = {}
    for view in versions.served_views:
        new = versions.new.view(view.name) or versions.new.view(versions.renames.get(("view", view.name), ""))
        if new is not None and new.kind == view.kind and view.source:
            differences = _differences(versions, view, new)
            if differences:
                alike.setdefault((view.source, differences), []).append((view, new))
    for (source, differences), views in alike.items():
        names = [view.name for view, _ in views]
        yield frozenset(names), _finding(versions, source, differences, views)


def _finding(
    versions: Versions,
    source: str,
    differences: tuple[str, ...],
    views: list[tuple[ViewDefinition, ViewDefinition]],
) -> Finding:
    names = [view.name for view, _ in views]
    readers = tuple(dict.fromkeys(one for name in names for one in versions.readers_of_view(name)))
    now = versions.new.source(views[0][1].source)
    return Finding(
        code="AR104",
        subject=now.name if now is not None else source,
        message=(
            f"source `{source}` of {listed(names)} is changed in place: {'; '.join(differences)}. "
            f"Features that {spoken(readers)} reads would be made of other data under the same names."
        ),
        instead=(
            f"Leave `{source}` as it was, add a new source `{next_version(source)}`, and read it by new views such as "
            f"`{next_version(names[0])}`."
        ),
        place=now.place if now is not None else views[0][1].place,
    )


def _differences(versions: Versions, old_view: ViewDefinition, new_view: ViewDefinition) -> tuple[str, ...]:
    old, new = versions.old.source(old_view.source), versions.new.source(new_view.source)
    if old is None or new is None:
        return () if old is None else (f"`{old.name}` is no longer there",)
    pairs = (
        ("kind", old.kind, new.kind),
        ("topic", old.topic, new.topic),
        ("path", old.path, new.path),
        ("timestamp", old.timestamp_field, new.timestamp_field),
        ("created time", old.created_field, new.created_field),
        ("timestamp of the view", old_view.timestamp_field, new_view.timestamp_field),
    )
    found = [f"{what}: {was or 'none'} → {now or 'none'}" for what, was, now in pairs if was != now]
    return (*found, *_mapped(old, new, old_view), *_columns(old, new, old_view))


def _mapped(old: SourceDefinition, new: SourceDefinition, view: ViewDefinition) -> Iterator[str]:
    """What the view reads under a name that now stands for another stored column."""
    was = {name: stored for stored, name in old.mapped.items()}
    now = {name: stored for stored, name in new.mapped.items()}
    for name in sorted(_read(view)):
        if was.get(name, name) != now.get(name, name):
            yield f"`{name}` is made of `{now.get(name, name)}`, before of `{was.get(name, name)}`"


def _columns(old: SourceDefinition, new: SourceDefinition, view: ViewDefinition) -> Iterator[str]:
    """What the view reads that the source no longer declares, or declares with another type."""
    if not new.columns:
        return
    for name in sorted(_read(view) & set(old.columns)):
        if name not in new.columns:
            yield f"it has no column `{name}` any more"
        elif new.columns[name] != old.columns[name]:
            yield f"column `{name}`: {old.columns[name]} → {new.columns[name]}"


def _read(view: ViewDefinition) -> frozenset[str]:
    """The columns that the view takes from its source."""
    return (
        columns_read(view.code_text)
        | set(view.columns)
        | set(view.keys)
        | {view.timestamp_field}
        | ({feature.name for feature in view.features} if view.kind == "batch" else set())
    )
