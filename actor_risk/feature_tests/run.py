"""Running cases: both forms of each, held against each other and against what the test expects."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from actor_risk.feature_tests.batch_form import FormValues, batch_values, write_history
from actor_risk.feature_tests.binding import BoundCase, BoundMoment
from actor_risk.feature_tests.expected import Expected, same
from actor_risk.feature_tests.repo import RepoUnderTest
from actor_risk.feature_tests.report import CaseReport, Check, Outcome, RunReport
from actor_risk.feature_tests.stream_form import INEXACT, Folders, StreamForm, StreamValues
from actor_risk.feature_tests.why import why

Progress = Callable[[CaseReport], None]


def run_cases(repo: RepoUnderTest, cases: Sequence[BoundCase], folder: Path, progress: Progress) -> RunReport:
    """Run all cases, one after the other; `folder` is for what they write. `progress` is told of each."""
    began_s, folders, reports = time.monotonic(), Folders(), []
    for number, bound in enumerate(cases):
        own = folder / f"case-{number}"
        own.mkdir(parents=True)
        reports.append(run_case(repo, bound, folders, own))
        progress(reports[-1])
    return RunReport(seconds=round(time.monotonic() - began_s, 3), cases=tuple(reports))


def run_case(repo: RepoUnderTest, bound: BoundCase, folders: Folders, folder: Path) -> CaseReport:
    """Run one case."""
    write_history(repo, bound)
    stream = StreamForm(repo, bound, folders, folder)
    checks: list[Check] = []
    for moment, batch in zip(bound.moments, batch_values(repo, bound), strict=True):
        ways = [one for one in stream.values(moment) if one.form.failure != INEXACT]
        checks += [_check(bound, moment, name, batch, ways) for name in moment.expected]
    case = bound.case
    return CaseReport(
        file=str(case.file),
        line=case.line,
        name=case.name,
        subject=case.subject.text,
        now_ms=case.now_ms,
        checks=tuple(checks),
    )


def _check(bound: BoundCase, moment: BoundMoment, name: str, batch: FormValues, ways: Sequence[StreamValues]) -> Check:
    expected, tolerance = moment.expected[name], bound.tolerances[name]
    shown = _odd_one(name, batch, ways, tolerance) or ways[0]
    failure = _failure(batch, shown, name)
    outcome = _outcome(expected, name, batch.values, shown.form.values, tolerance, failed=failure is not None)
    return Check(
        line=moment.line,
        as_of_ms=moment.as_of_ms,
        feature=name,
        expected=expected.text,
        batch=batch.values.get(name),
        stream=shown.form.values.get(name),
        outcome=outcome,
        status=shown.statuses.get(name, ""),
        way=shown.way,
        ways=len(ways),
        failure=failure,
        why=() if outcome == "passed" else why(bound, moment, name, batch.inputs),
    )


def _odd_one(name: str, batch: FormValues, ways: Sequence[StreamValues], tolerance: float) -> StreamValues | None:
    """The first way that fails or gives another value than the batch form."""
    for one in ways:
        values = one.form.values
        if name not in values or (name in batch.values and not same(batch.values[name], values[name], tolerance)):
            return one
    return None


def _failure(batch: FormValues, shown: StreamValues, name: str) -> str | None:
    """Why there is no value to compare."""
    parts = [
        f"{form}: {values.failure}"
        for form, values in (("batch", batch), ("stream", shown.form))
        if name not in values.values and values.failure is not None
    ]
    return "; ".join(parts) or None


def _outcome(
    expected: Expected,
    name: str,
    batch: Mapping[str, object],
    stream: Mapping[str, object],
    tolerance: float,
    *,
    failed: bool,
) -> Outcome:
    if failed:
        return "failed"
    if not same(batch[name], stream[name], tolerance):
        return "differs"
    met = expected.met_by(batch[name], tolerance) and expected.met_by(stream[name], tolerance)
    return "passed" if met else "wrong"
