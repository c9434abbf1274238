"""The result of a run for a person at a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from actor_risk.feature_tests.moments import moment, span
from actor_risk.feature_tests.report import CaseReport, Check, RunReport
from actor_risk.reporting.words import counted

LOG_WIDTH = 160
"""Columns in a job's log, which has no edge."""

_STYLES = {"wrong": "red", "differs": "bold white on red", "failed": "bold red"}
_WORDS = {"wrong": "wrong", "differs": "BATCH AND STREAM DIFFER", "failed": "failed"}


def show(shown: Console, report: RunReport) -> None:
    """Print what did not pass, each with why, and the count of all."""
    if not shown.is_terminal:
        shown.width = max(shown.width, LOG_WIDTH)
    for case in report.failed:
        _show_case(shown, case)
    checks = [check for case in report.cases for check in case.checks]
    differing = sum(check.outcome == "differs" for check in checks)
    if differing:
        shown.print(
            Text(
                f"{counted(differing, 'value')} differ between training and serving: a view must give each "
                "event the same columns, whichever events come with it",
                "bold red",
            )
        )
    told = f"{counted(len(report.cases), 'test')}, {counted(len(checks), 'value')}, {report.seconds:.1f} s"
    if report.failed:
        shown.print(Text(f"{len(report.failed)} failed", "bold red"), Text(f"of {told}"))
    else:
        shown.print(Text("passed", "bold green"), Text(told))


def _show_case(shown: Console, case: CaseReport) -> None:
    shown.print(Text.assemble((f"{case.file}:{case.line}", "bold"), f" {case.subject}: {case.name}"))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("  as of", "feature", "expected", "batch", "stream", ""):
        table.add_column(name, overflow="fold")
    wrong = [check for check in case.checks if check.outcome != "passed"]
    for check in wrong:
        style = _STYLES[check.outcome]
        table.add_row(
            f"  {moment(check.as_of_ms)} ({span(check.as_of_ms - case.now_ms)})",
            check.feature,
            check.expected,
            Text(_value(check.batch, check), style),
            Text(_value(check.stream, check, check.status), style),
            Text(_WORDS[check.outcome], style),
        )
    shown.print(table)
    for line in dict.fromkeys(line for check in wrong for line in _lines(case, check)):
        shown.print(Text(line), soft_wrap=True)
    shown.print()


def _lines(case: CaseReport, check: Check) -> list[str]:
    lines = [] if check.failure is None else [f"  {check.feature}: {check.failure}"]
    if check.outcome == "differs":
        lines.append(f"  {check.feature}: the stream's value is that of events that arrive {check.way}")
    lines += [f"  {check.feature}: {line}" for line in check.why]
    return [*lines, f"  expected in {case.file}:{check.line}"]


def _value(value: Any, check: Check, status: str = "") -> str:
    if value is not None:
        return str(value)
    if check.failure is not None:
        return "–"
    return f"null, {status}" if status not in ("", "PRESENT") else "null"
