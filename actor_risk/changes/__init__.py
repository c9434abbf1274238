"""What a change to the feature repository does, found out before it is merged: `plan`, `apply`, `lineage`."""

from actor_risk.changes.findings import CODES, Finding
from actor_risk.changes.plan import Change, Plan

__all__ = ["CODES", "Change", "Finding", "Plan"]
