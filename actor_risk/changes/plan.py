"""The plan: everything that is known of a change, as one value that reports show and `apply` obeys."""

from __future__ import annotations

from typing import Literal

import msgspec

from actor_risk.changes.described import RepoDefinition, ServedModel
from actor_risk.changes.findings import Finding
from actor_risk.changes.values import Costs, SampleValues

Kind = Literal["entity", "source", "view", "feature", "service"]


class Change(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One difference. name: of the new version, of the old where it is removed; `view:feature` for a feature.

    was: its old name where it is renamed. details: in words, `window: 24h → 12h`. served_by: the services and the model
    versions (`model@version`) of the old version that read it, or a feature of it. meaning: whether values change, and
    not words alone.
    """

    what: Literal["added", "changed", "removed", "renamed"]
    kind: Kind
    name: str
    was: str = ""
    details: tuple[str, ...] = ()
    served_by: tuple[str, ...] = ()
    meaning: bool = True
    place: str = ""


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a change does. against: what the new version was compared with. values: None without a sample.

    missing: parts that could not be told, and why.
    """

    against: str
    old: RepoDefinition
    new: RepoDefinition
    models: tuple[ServedModel, ...] = ()
    changes: tuple[Change, ...] = ()
    findings: tuple[Finding, ...] = ()
    values: SampleValues | None = None
    costs: Costs | None = None
    missing: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def refusals(self) -> tuple[Finding, ...]:
        """The findings for which `apply` refuses."""
        return tuple(finding for finding in self.findings if finding.severity == "error")
