"""The checks: each compares two versions, or looks at the new one, and says by a stable code what is wrong with it.

repository.py  the new version itself          leakage.py      the future and the label in features
breaks.py      what readers of the old lose    values.py       what the sample says
conventions.py what the team has agreed on     costs.py        what grows
waivers.py     what is right here nevertheless
"""

from __future__ import annotations

from collections.abc import Iterator

from actor_risk.changes.checks.breaks import find_breaks
from actor_risk.changes.checks.conventions import find_against_conventions
from actor_risk.changes.checks.costs import find_costs
from actor_risk.changes.checks.leakage import find_leakage
from actor_risk.changes.checks.repository import find_problems
from actor_risk.changes.checks.values import find_in_values
from actor_risk.changes.checks.waivers import apply_waivers
from actor_risk.changes.described import RepoDefinition, ServedModel
from actor_risk.changes.findings import Finding
from actor_risk.changes.plan import Change
from actor_risk.changes.values import Costs, SampleValues
from actor_risk.changes.versions import Versions, feature_differences, features_of

__all__ = ["find"]

_ORDER = {"error": 0, "warning": 1, "note": 2}


def find(
    old: RepoDefinition,
    new: RepoDefinition,
    changes: tuple[Change, ...],
    models: tuple[ServedModel, ...],
    values: SampleValues | None,
    costs: Costs | None,
) -> tuple[Finding, ...]:
    """Everything that is to be said of the change, waivers applied: errors first, then warnings, then notes."""
    versions = Versions(old, new, changes, models)
    found = list(find_problems(new))
    if not new.is_unreadable:
        found += _of_both(versions, values, costs)
    told = apply_waivers(versions, found)
    return tuple(sorted(told, key=lambda one: (_ORDER[one.severity], one.code, one.subject)))


def _of_both(versions: Versions, values: SampleValues | None, costs: Costs | None) -> Iterator[Finding]:
    breaks = list(find_breaks(versions, costs))
    yield from breaks
    yield from find_leakage(versions, values)
    yield from find_in_values(versions, values)
    yield from find_against_conventions(versions, _explained(versions, breaks))
    yield from find_costs(versions, costs)


def _explained(versions: Versions, breaks: list[Finding]) -> frozenset[tuple[str, str]]:
    """(code, subject) that is said otherwise, or was so before: a feature with its old name is none with a new name."""
    found = {("AR405", finding.subject) for finding in breaks if finding.code == "AR107"}
    found |= {
        ("AR406", f"{view.name}:{feature.name}")
        for view, feature in features_of(versions.new)
        if (old := versions.old_view(view.name)) is not None and old.feature(feature.name) is not None
    }
    for view in versions.served_views:
        new = versions.new.view(view.name)
        for feature in versions.served_features(view):
            if new is not None and feature_differences(view, new, feature.name, code=False):
                found.add(("AR409", f"{view.name}:{feature.name}"))
    return frozenset(found)
