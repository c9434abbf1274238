"""Waivers: a tag `waive:<code>` whose value is the reason, on what a finding is about or on what is around it.

Around a feature is its view, around a view its source and the services that read it, in either version. Tags are those
of the new version.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import msgspec

from actor_risk.changes.described import RepoDefinition
from actor_risk.changes.findings import CODES, Finding
from actor_risk.changes.readers import stored_refs
from actor_risk.changes.versions import Versions, definitions

PREFIX = "waive:"


@dataclass(frozen=True)
class Waiver:
    """A tag that waives. on: (kind, name) of what carries it; place: of its definition."""

    code: str
    reason: str
    on: tuple[str, str]
    place: str

    @property
    def refusal(self) -> str:
        """Why it waives nothing, whatever is found; "" where it may."""
        if self.code not in CODES:
            return f"there is no code {self.code}"
        if not CODES[self.code].waivable:
            return f"{self.code} ({CODES[self.code].title}) cannot be waived"
        return "" if self.reason.strip() else "it gives no reason"


def apply_waivers(versions: Versions, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings, those that a tag waives with its reason; then what is wrong with waivers that the change brings."""
    waivers = list(_waivers(versions.new))
    usable = {(waiver.on, waiver.code): waiver for waiver in waivers if not waiver.refusal}
    told: list[Finding] = []
    used: set[tuple[tuple[str, str], str]] = set()
    around = _Around(versions)
    for finding in findings:
        places = [(on, finding.code) for on in around.of(finding.subject)]
        found = next((place for place in places if place in usable), None)
        used.update(place for place in places if place in usable)
        told.append(finding if found is None else msgspec.structs.replace(finding, waived=usable[found].reason.strip()))
    before = {(waiver.on, waiver.code, waiver.reason) for waiver in _waivers(versions.old)}
    fresh = [waiver for waiver in waivers if (waiver.on, waiver.code, waiver.reason) not in before]
    told += [_refused(waiver) for waiver in fresh if waiver.refusal]
    told += [_idle(one) for one in fresh if not one.refusal and (one.on, one.code) not in used]
    return tuple(told)


def _refused(waiver: Waiver) -> Finding:
    return Finding(
        code="AR601",
        subject=waiver.on[1],
        message=f"the tag `{PREFIX}{waiver.code}` waives nothing: {waiver.refusal}.",
        instead=(
            f'tags={{"{PREFIX}{waiver.code}": "<why it is right here>"}}'
            if waiver.code in CODES and CODES[waiver.code].waivable
            else "Take the tag out; docs/findings.md lists the codes."
        ),
        place=waiver.place,
    )


def _idle(waiver: Waiver) -> Finding:
    return Finding(
        code="AR602",
        subject=waiver.on[1],
        message=f"the tag `{PREFIX}{waiver.code}` is new, and nothing is found that it could waive.",
        instead="Take the tag out, or put it on what the finding is about.",
        place=waiver.place,
    )


def _waivers(repo: RepoDefinition) -> Iterator[Waiver]:
    for kind, one in definitions(repo):
        yield from _in(one.tags, (kind, one.name), one.place)
    for view in repo.views:
        for feature in view.features:
            yield from _in(feature.tags, ("feature", f"{view.name}:{feature.name}"), view.place)


def _in(tags: Mapping[str, str], on: tuple[str, str], place: str) -> Iterator[Waiver]:
    for tag, reason in tags.items():
        if tag.startswith(PREFIX):
            yield Waiver(tag.removeprefix(PREFIX).strip(), reason, on, place)


class _Around:
    """What is around a subject, from the nearest on."""

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
        self._services: dict[str, dict[str, None]] = {}
        for repo in (versions.new, versions.old):
            for service in repo.services:
                for ref in stored_refs(service, service.features):
                    for subject in (ref, ref.partition(":")[0]):
                        self._services.setdefault(subject, {})[service.name] = None

    def of(self, subject: str) -> Iterator[tuple[str, str]]:
        view = subject.partition(":")[0]
        if ":" in subject:
            yield "feature", subject
        else:
            yield from ((kind, subject) for kind in ("entity", "source", "service"))
        yield "view", view
        for repo in (self._versions.new, self._versions.old):
            definition = repo.view(view)
            if definition is not None and definition.source:
                yield "source", definition.source
        yield from (("service", name) for name in self._services.get(subject, ()))
