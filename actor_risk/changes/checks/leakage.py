"""What a feature must not know: the future of its as-of time, and the label."""

from __future__ import annotations

from collections.abc import Iterator

from actor_risk.changes.described import RepoDefinition, SourceDefinition, ViewDefinition
from actor_risk.changes.findings import Finding
from actor_risk.changes.reads import columns_read
from actor_risk.changes.values import FeatureValues, SampleValues
from actor_risk.changes.versions import Versions, feature_differences
from actor_risk.changes.wording import listed

LABELS = frozenset(
    [
        "label",
        "labels",
        "target",
        "y",
        "verdict",
        "ground_truth",
        "fraud",
        "is_fraud",
        "is_abuse",
        "is_abusive",
        "is_attributed",
        "is_chargeback",
        "charged_back",
    ]
)
"""Columns that say what a model is to find out. `chargeback` is none: the demo's is an event with a time of its own."""

LABEL_ENDINGS = ("_label", "_is_fraud", "_is_abuse", "_is_abusive", "_is_attributed", "_is_chargeback", "_verdict")

LATER = frozenset(
    [
        "attributed_time",
        "attributed_at",
        "converted_at",
        "conversion_time",
        "installed_at",
        "install_time",
        "refunded_at",
        "resolved_at",
        "charged_back_at",
        "reviewed_at",
        "decided_at",
        "closed_at",
        "banned_at",
        "suspended_at",
        "updated_at",
        "last_updated",
        "modified_at",
    ]
)
"""Columns that are filled, or overwritten, after the event that they stand beside."""

LATER_ENDINGS = ("_resolved_at", "_refunded_at", "_converted_at", "_attributed_at", "_charged_back_at", "_reviewed_at")

TOO_GOOD_AUC = 0.98


def find_leakage(versions: Versions, values: SampleValues | None) -> Iterator[Finding]:
    """AR201 to AR204."""
    if values is not None:
        yield from _sees_ahead(versions, values)
        yield from (one for feature in values.features for one in _too_good(versions, values, feature))
    before = {(finding.subject, finding.message) for finding in _columns(versions.old)}
    yield from (one for one in _columns(versions.new) if (one.subject, one.message) not in before)


def _sees_ahead(versions: Versions, values: SampleValues) -> Iterator[Finding]:
    for ref, count in values.leaks.items():
        if not count:
            continue
        view = versions.new.view(ref.partition(":")[0])
        yield Finding(
            code="AR201",
            subject=ref,
            message=(
                f"in {count:,} of the sample's queries its value changed when events later than the as-of time were "
                "left out: training would see what serving cannot."
            ),
            instead=(
                "Compute it from the event itself and from earlier ones: in the function take no column's last value, "
                "maximum, mean or order over all events, move no `event_time`, and shift nothing backwards. Windows do "
                "the rest."
            ),
            place=view.place if view is not None else "",
        )


def _too_good(versions: Versions, values: SampleValues, feature: FeatureValues) -> Iterator[Finding]:
    auc = feature.new.label_auc if feature.new is not None else None
    if auc is None or auc < TOO_GOOD_AUC or not _is_touched(versions, feature):
        return
    view = versions.new.view(feature.feature.partition(":")[0])
    yield Finding(
        code="AR204",
        subject=feature.feature,
        message=(
            f"alone it tells the label `{values.label}` with an AUC of {auc:.3f}: as a rule a feature is so good only "
            "because the label is in it."
        ),
        instead=(
            "Look at what it is made of, and from when: does it hold what a reviewer decided, or what happened after "
            "the event? If it is honest, waive this with how you know."
        ),
        place=view.place if view is not None else "",
    )


def _is_touched(versions: Versions, feature: FeatureValues) -> bool:
    view, _, name = feature.feature.partition(":")
    old, new = versions.old_view(view), versions.new.view(view)
    if old is None or new is None or old.feature(name) is None or feature.old is None:
        return True
    return feature.changed > 0 or bool(feature_differences(old, new, name))


def _columns(repo: RepoDefinition) -> Iterator[Finding]:
    told: dict[str, frozenset[str]] = {}
    for source in repo.sources:
        labels = frozenset(name for name in _names(source) if is_label(name))
        told[source.name] = labels
        if labels:
            yield _label_in_source(source, sorted(labels))
    for view in repo.views:
        used = _used(repo, view)
        read = sorted(name for name in used if is_label(name) and name not in told.get(view.source, ()))
        if read:
            yield _label_in_view(view, read, {used[name] for name in read})
        later = sorted(name for name in used if is_later(name))
        if later:
            yield _known_later(view, later, {used[name] for name in later})


def is_label(column: str) -> bool:
    """Whether the column's name is one that labels have."""
    return column.lower() in LABELS or column.lower().endswith(LABEL_ENDINGS)


def is_later(column: str) -> bool:
    """Whether the column's name is one of those that are known only after the event."""
    return column.lower() in LATER or column.lower().endswith(LATER_ENDINGS)


def _names(source: SourceDefinition) -> Iterator[str]:
    yield from source.columns
    yield from source.mapped
    yield from (name for stored, name in source.mapped.items() if not is_label(stored))


def _used(repo: RepoDefinition, view: ViewDefinition) -> dict[str, str]:
    """Column that the view makes values of → the feature that is it, "" for one that a function or window reads."""
    source = repo.source(view.source)
    stored = {name: column for column, name in source.mapped.items()} if source is not None else {}
    used = dict.fromkeys((*sorted(columns_read(view.code_text)), *view.columns), "")
    used |= {one.window.column: "" for one in view.features if one.window is not None}
    if view.kind == "batch":
        used |= {stored.get(one.name, one.name): one.name for one in view.features}
    if view.kind == "on_demand":
        used |= dict.fromkeys((ref.partition(":")[2] for ref in view.inputs if is_label(ref.partition(":")[2])), "")
    used.pop(view.timestamp_field, None)
    return used


def _subject(view: ViewDefinition, features: set[str]) -> str:
    named = features - {""}
    return f"{view.name}:{named.pop()}" if len(named) == len(features) == 1 else view.name


def _label_in_source(source: SourceDefinition, labels: list[str]) -> Finding:
    return Finding(
        code="AR202",
        subject=source.name,
        message=f"source `{source.name}` declares {listed(labels)}, which is what models are to find out: features "
        "made of it know the answer.",
        instead=f"Take {listed(labels)} out of the source. Labels are a table of their own (`labels/`), joined at "
        "training only.",
        place=source.place,
    )


def _label_in_view(view: ViewDefinition, labels: list[str], features: set[str]) -> Finding:
    return Finding(
        code="AR202",
        subject=_subject(view, features),
        message=f"`{view.name}` reads {listed(labels)}, which is what models are to find out.",
        instead=f"Make the feature of what was known at the event, and leave {listed(labels)} to the table of labels.",
        place=view.place,
    )


def _known_later(view: ViewDefinition, columns: list[str], features: set[str]) -> Finding:
    return Finding(
        code="AR203",
        subject=_subject(view, features),
        message=(
            f"`{view.name}` reads {listed(columns)}, which is filled after the event that it stands beside: history "
            "has it, the stream has not."
        ),
        instead=(
            f"Send what happened later as an event of its own, with its own `event_time`, and count that; leave "
            f"{listed(columns)} out."
        ),
        place=view.place,
    )
