"""The report for a person at a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from actor_risk.changes.findings import Finding
from actor_risk.changes.plan import Change, Plan
from actor_risk.changes.report import summary
from actor_risk.reporting.words import counted, lines, one_line

LOG_WIDTH = 160
"""Columns in a job's log, which has no edge."""
TABLE_WIDTH_MIN = 90
"""Columns below which rows are written one below the other, and not as a table."""
SHOWN_MAX = 60
"""Rows of one part; the files have all."""

_STYLES = {"refused": "bold red", "warned": "bold yellow", "passes": "bold green", "unchanged": "bold"}
_STATES = {"bad": ("✗", "red"), "warned": ("!", "yellow"), "good": ("✓", "green"), "unknown": ("?", "yellow")}
_SEVERITY_STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold"}
_CHANGE_STYLES = {"added": "green", "removed": "red", "changed": "yellow", "renamed": "yellow"}


def terminal(plan: Plan, shown: Console, *, strict: bool = False) -> None:
    """Print the verdict and a line for each area, then what changes, findings, costs and values."""
    if not shown.is_terminal:
        shown.width = max(shown.width, LOG_WIDTH)
    plan = summary.without_personal_values(plan)
    verdict = summary.verdict(plan, strict=strict)
    shown.print(Text(summary.headline(plan, strict=strict), _STYLES[verdict]))
    shown.print(Text(summary.about(plan), "dim"))
    shown.print()
    shown.print(_areas(plan))
    for name, part in (("Changes", _changes), ("Findings", _findings), ("Costs", _costs), ("Values", _values)):
        _part(shown, name, part(plan, shown.width >= TABLE_WIDTH_MIN))
    for missing in plan.missing:
        shown.print(Text.assemble(("not told: ", "yellow"), one_line(missing, 600)))


def _part(shown: Console, name: str, rows: Iterator[Text | Table | Padding]) -> None:
    for place, row in enumerate(rows):
        if not place:
            shown.print()
            shown.print(Text(name, "bold"))
        shown.print(row)


def _areas(plan: Plan) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for area in summary.areas(plan):
        sign, style = _STATES[area.state]
        table.add_row(Text(sign, style), Text(area.name), Text(area.told, overflow="fold"))
    return table


def _changes(plan: Plan, _wide: bool) -> Iterator[Text | Padding]:
    for change in plan.changes[:SHOWN_MAX]:
        yield from _change(change)
    yield from _left_out(len(plan.changes), "change")


def _change(change: Change) -> Iterator[Text | Padding]:
    style = _CHANGE_STYLES[change.what]
    told = f"{summary.mark(change)} {change.kind} {one_line(change.name)}"
    told += f" (was {one_line(change.was)})" if change.was else ""
    words_only = "" if change.meaning or change.what != "changed" else "  words only: no value changes"
    yield Text.assemble((told, style), (words_only, "dim"), (_at(change.place), "dim"))
    for detail in change.details:
        yield _below(Text(one_line(detail)))
    if change.served_by:
        yield _below(Text(f"read by {summary.names(change.served_by)}", "dim"))


def _findings(plan: Plan, _wide: bool) -> Iterator[Text | Padding]:
    findings = summary.found(plan)
    for finding in findings[:SHOWN_MAX]:
        yield from _finding(finding)
    yield from _left_out(len(findings), "finding")


def _finding(finding: Finding) -> Iterator[Text | Padding]:
    yield Text.assemble(
        (f"{finding.severity} {finding.code} ", _SEVERITY_STYLES[finding.severity]),
        (one_line(finding.subject), "bold"),
        (_at(finding.place), "dim"),
    )
    yield _below(Text(one_line(finding.message, 1_000)))
    if finding.waived:
        yield _below(Text(f"waived: {one_line(finding.waived)}", "dim"))
    elif finding.instead:
        yield _below(Text.assemble(("instead: ", "green"), lines(finding.instead)))


def _costs(plan: Plan, wide: bool) -> Iterator[Text | Table | Padding]:
    yield from _rows(wide, summary.VIEW_COSTS, [summary.cost_of_view(row) for row in summary.views(plan)])
    yield from _rows(wide, summary.SERVICE_COSTS, [summary.cost_of_service(row) for row in summary.services(plan)])
    for command in plan.costs.backfill if plan.costs else ():
        yield Text(f"  {one_line(command)}", "green")


def _values(plan: Plan, wide: bool) -> Iterator[Text | Table | Padding]:
    if plan.values is None:
        return
    rows = [summary.value_row(one) for one in summary.changed_values(plan.values)]
    yield from _rows(wide, summary.VALUES, rows)
    if rows:
        told = f"sample {one_line(plan.values.sample)}: {counted(plan.values.events, 'event')}, "
        yield Text(told + counted(plan.values.queries, "row"), "dim")


def _rows(wide: bool, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[Text | Table | Padding]:
    """A table, or on a narrow screen each row as lines; nothing without rows."""
    if not rows:
        return
    if wide:
        table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
        table.add_column(header[0], overflow="fold")
        for name in header[1:]:
            table.add_column(name, justify="right", overflow="fold")
        for row in rows[:SHOWN_MAX]:
            table.add_row(*(Text(cell) for cell in row))
        yield table
    else:
        for row in rows[:SHOWN_MAX]:
            yield Text(row[0], overflow="fold")
            told = (f"{name} {cell}" for name, cell in zip(header[1:], row[1:], strict=True) if cell != "–")
            yield _below(Text(", ".join(told), "dim"))
    yield from _left_out(len(rows), header[0])


def _left_out(count: int, noun: str) -> Iterator[Text]:
    if count > SHOWN_MAX:
        yield Text(f"… {counted(count - SHOWN_MAX, f'more {noun}')}: --html has them", "dim")


def _at(place: str) -> str:
    return f"  {one_line(place)}" if place else ""


def _below(text: Text) -> Padding:
    return Padding(text, (0, 0, 0, 4), expand=False)
