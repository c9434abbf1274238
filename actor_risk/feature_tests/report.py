"""What a run of tests found, as data: what `--json` writes."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Outcome = Literal["passed", "wrong", "differs", "failed"]
"""wrong: both forms agree on a value that is not the expected one. differs: the two forms, or two ways in which the
events may arrive, give different values. failed: a form gives no value at all, since code of the repository raises."""


class Check(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One feature as of one time. way: how the events arrived for the stream form's value. why: what it is made of, for
    a check that did not pass."""

    line: int
    as_of_ms: int
    feature: str
    expected: str
    batch: Any
    stream: Any
    outcome: Outcome
    status: str = ""
    way: str = ""
    ways: int = 0
    failure: str | None = None
    why: tuple[str, ...] = ()


class CaseReport(msgspec.Struct, frozen=True, kw_only=True):
    """One case."""

    file: str
    line: int
    name: str
    subject: str
    now_ms: int
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.outcome == "passed" for check in self.checks)


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """All cases of a run."""

    seconds: float
    cases: tuple[CaseReport, ...]

    @property
    def failed(self) -> tuple[CaseReport, ...]:
        return tuple(case for case in self.cases if not case.passed)
