"""The plan as JSON, for programs: versioned, and read back by the same types."""

from __future__ import annotations

from typing import Literal

import msgspec

from actor_risk.changes.plan import Plan
from actor_risk.changes.report.summary import Verdict, of_severity, verdict, without_personal_values

FORMAT: Literal["actor-risk plan 1"] = "actor-risk plan 1"


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` writes. format: another one where a field goes or means something else.

    errors, warnings, notes: how many findings of each; a waived one is a note.
    """

    format: Literal["actor-risk plan 1"] = FORMAT
    verdict: Verdict
    errors: int
    warnings: int
    notes: int
    plan: Plan


def json(plan: Plan, *, strict: bool = False) -> bytes:
    """The file, indented."""
    document = Document(
        verdict=verdict(plan, strict=strict),
        errors=len(of_severity(plan, "error")),
        warnings=len(of_severity(plan, "warning")),
        notes=len(of_severity(plan, "note")),
        plan=without_personal_values(plan),
    )
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def read_json(content: bytes) -> Document:
    """What `json` wrote. Raises msgspec.ValidationError for another format."""
    return msgspec.json.decode(content, type=Document)
