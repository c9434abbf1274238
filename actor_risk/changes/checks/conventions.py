"""What the team has agreed on: who owns it, what it says, how it is called, what it may grow to.

Only what a change brings is told: whatever the old version did already is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from actor_risk.changes.checks import _naming, _windows
from actor_risk.changes.checks.persons import find_persons
from actor_risk.changes.described import RepoDefinition, ViewDefinition
from actor_risk.changes.findings import Finding
from actor_risk.changes.versions import Versions, definitions, features_of
from actor_risk.changes.wording import DAY_MS, length, listed, timedelta_of


def find_against_conventions(versions: Versions, explained: frozenset[tuple[str, str]]) -> Iterator[Finding]:
    """AR401 to AR409. explained: (code, subject) that a finding about a break says already."""
    checks: tuple[Callable[[RepoDefinition], Iterator[Finding]], ...] = (
        _owners,
        _descriptions,
        _tiers,
        find_persons,
        _expiry,
        _naming.find_names,
        _windows.find_hops,
        _windows.find_distinct_counts,
        _naming.find_contradictions,
    )
    for check in checks:
        before = {(finding.subject, finding.message) for finding in check(versions.old)}
        for finding in check(versions.new):
            told = (_old_subject(versions, finding.subject), finding.message) in before
            same = (finding.subject, finding.message) in before
            if not told and not same and (finding.code, finding.subject) not in explained:
                yield finding


def _old_subject(versions: Versions, subject: str) -> str:
    """How the definition was called, so that a new name does not make old habits new."""
    view, colon, feature = subject.partition(":")
    if not colon:
        names = [versions.old_name(kind, subject) for kind in ("view", "entity", "source", "service")]
        return next((name for name in names if name != subject), subject)
    was = versions.old_name("feature", subject)
    return was if was != subject else f"{versions.old_name('view', view)}:{feature}"


def _owners(repo: RepoDefinition) -> Iterator[Finding]:
    for kind, one in definitions(repo):
        if kind in ("view", "service") and not one.owner.strip():
            yield Finding(
                code="AR401",
                subject=one.name,
                message=f"this {kind} has no owner: nobody is asked when it breaks, or when it is to change.",
                instead='owner="<the team, as in the other views: ads-risk>"',
                place=one.place,
            )


def _descriptions(repo: RepoDefinition) -> Iterator[Finding]:
    for kind, one in definitions(repo):
        if not one.description.strip():
            yield Finding(
                code="AR402",
                subject=one.name,
                message=f"this {kind} has no description.",
                instead='description="<one sentence: what it is, of whom, in which unit>"',
                place=one.place,
            )
    for view, feature in features_of(repo):
        if not feature.description.strip():
            yield Finding(
                code="AR402",
                subject=f"{view.name}:{feature.name}",
                message="this feature has no description: explanations have nothing to say of it but its name.",
                instead=_description_of(view, feature.name),
                place=view.place,
            )


def _description_of(view: ViewDefinition, name: str) -> str:
    about = "<what it counts or measures, of whom, in which unit, over which window>"
    if view.kind == "on_demand":
        return f'tags={{"describe:{name}": "{about}"}} of the view: Feast refuses it on an on-demand field'
    return f'Field(name="{name}", …, description="{about}")'


def _tiers(repo: RepoDefinition) -> Iterator[Finding]:
    for view in repo.views:
        if not view.tags.get("tier", "").strip():
            yield Finding(
                code="AR403",
                subject=view.name,
                message="this view has no tier: nobody can tell what must not fail from what may.",
                instead='tags={"tier": "1"} where decisions need it at once, "2" where a day without it is borne',
                place=view.place,
            )


def _expiry(repo: RepoDefinition) -> Iterator[Finding]:
    for view in repo.views:
        if view.kind == "on_demand":
            continue
        longest = max((one.window.length_ms for one in view.features if one.window is not None), default=0)
        if view.ttl_ms == 0:
            kept = longest + DAY_MS if longest else 30 * DAY_MS
            message = (
                "this view has no TTL: its rows stay in Redis for ever, and old values are served as if they held."
            )
        elif view.ttl_ms < longest:
            kept = longest + DAY_MS
            reaching = [one.name for one in view.features if one.window and one.window.length_ms > view.ttl_ms]
            message = (
                f"its TTL of {length(view.ttl_ms)} is shorter than windows of {length(longest)} ({listed(reaching)}): "
                "values expire while events of theirs still count."
            )
        else:
            continue
        yield Finding(
            code="AR405",
            subject=view.name,
            message=message,
            instead=f"ttl={timedelta_of(kept)}",
            place=view.place,
        )
