"""The report for a person at a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from actor_risk.audit.report import AuditReport, Example, FeatureReport
from actor_risk.audit.words import REASONS
from actor_risk.reporting.words import counted, exact, moment, number, share

_STYLES = {"equal": "bold green", "differs": "bold red", "nothing_compared": "bold yellow"}
_HEADLINES = {
    "equal": "served equals recomputed",
    "differs": "served differs from recomputed",
    "nothing_compared": "nothing was compared",
}
EXAMPLES_SHOWN = 3
LOG_WIDTH = 160
"""Columns in a job's log, which has no edge."""


def show(shown: Console, report: AuditReport, *, every_feature: bool) -> None:
    """Print the verdict, what was set apart, and a table: of the features that differ or were late, or of all."""
    if not shown.is_terminal:
        shown.width = max(shown.width, LOG_WIDTH)
    shown.print(
        f"{number(report.compared_decisions)} of {number(report.decisions)} decisions compared, "
        f"from {moment(report.from_ms)} to {moment(report.to_ms)} UTC"
    )
    if report.own_events:
        shown.print(
            f"scored events that history does not have, each added for its decision: {number(report.own_events)}"
        )
    for reason, count in report.set_apart.items():
        shown.print(f"[yellow]{counted(count, 'decision')} set apart[/yellow]: {reason}, {REASONS[reason]}")
    _show_not_compared(shown, report)
    for count, told in ((report.cut_off_lines, "cut off"), (report.unreadable_lines, "not readable")):
        if count:
            shown.print(f"[yellow]{counted(count, 'line')} of the log {told}[/yellow]")
    listed = report.features if every_feature else [f for f in report.features if f.differing or f.late]
    if listed:
        shown.print(_table(listed))
    for feature in report.differing_features:
        for example in feature.examples[:EXAMPLES_SHOWN]:
            shown.print(_line(feature, example), markup=False)
    style = _STYLES[report.verdict]
    shown.print(f"[{style}]{_HEADLINES[report.verdict]}[/{style}]{_reason(report)}")


def _show_not_compared(shown: Console, report: AuditReport) -> None:
    reasons: dict[str, list[int]] = {}
    for feature in report.features:
        for reason, count in feature.not_compared.items():
            reasons.setdefault(reason, []).append(count)
    for reason, counts in reasons.items():
        told = f"{counted(sum(counts), 'value')} of {counted(len(counts), 'feature')} not compared"
        shown.print(f"[yellow]{told}[/yellow]: {reason}, {REASONS[reason]}")
        if reason == "beyond_history":
            ends = ", ".join(f"{end.source} to {moment(end.end_ms)}" for end in report.sources)
            shown.print(f"  history ends: {ends} UTC (say --history-until if it is complete up to a later time)")


def _table(features: list[FeatureReport]) -> Table:
    names = ("compared", "equal", "late", "mismatched", "only online", "only offline", "worst", "SMAPE")
    table = Table(box=None)
    table.add_column("feature", overflow="fold")
    for name in names:
        table.add_column(name, justify="right")
    for feature in features:
        counts = (feature.compared, feature.equal, feature.late, feature.mismatched)
        table.add_row(
            feature.feature,
            *(number(count) for count in (*counts, feature.only_online, feature.only_offline)),
            number(feature.worst),
            "–" if feature.smape is None else share(feature.smape),
            style="red" if feature.differing else None,
        )
    return table


def _line(feature: FeatureReport, example: Example) -> str:
    actor = " ".join(f"{key}={value}" for key, value in example.entities.items())
    values = f"served {exact(example.online)} ({example.status}), recomputed {exact(example.offline)}"
    return f"  {feature.feature}: {values} as of {moment(example.as_of_ms)}, {actor}, decision {example.decision_id}"


def _reason(report: AuditReport) -> str:
    if report.verdict == "nothing_compared":
        return ": widen --from and --to, or look at what was set apart" if not report.decisions else ""
    worst = max((feature.mismatch_rate for feature in report.features), default=0.0)
    compared = sum(feature.compared for feature in report.features)
    bound = share(report.mismatch_rate_max)
    told = f": {counted(compared, 'value')} of {counted(len(report.features), 'feature')}"
    return told + (f", up to {share(worst)} of a feature's differ (allowed: {bound})" if worst else "")
