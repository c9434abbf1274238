"""The report as a comment on a pull request: a summary first, the rest folded, and never longer than one may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from actor_risk.changes.findings import Finding
from actor_risk.changes.plan import Change, Plan
from actor_risk.changes.report import summary
from actor_risk.changes.report._escaping import block, code, prose
from actor_risk.reporting.words import counted

LENGTH_MAX = 60_000
"""Signs of a comment: GitHub takes 65,536."""
MARKER = "<!-- actor-risk plan -->"
"""The first line, by which the workflow finds the comment that it wrote before."""
CLOSING = 200
"""Signs that a part needs besides its rows: how it ends, and how much was left out."""

_SIGNS = {"refused": "❌", "warned": "⚠️", "passes": "✅", "unchanged": "✅"}
_STATES = {"bad": "❌", "warned": "⚠️", "good": "✅", "unknown": "❔"}
_SEVERITIES = {"error": "❌", "warning": "⚠️", "note": "ℹ️"}


@dataclass(frozen=True)
class Part:
    """A folded part. rows: of which the first that fit are shown; opened: not folded at first."""

    title: str
    before: str
    rows: tuple[str, ...]
    noun: str
    opened: bool = False


def markdown(plan: Plan, *, strict: bool = False, pages: str = "") -> str:
    """The comment, at most LENGTH_MAX signs. pages: address of docs/ to which codes link; "" for no links."""
    plan = summary.without_personal_values(plan)
    head = _head(plan, strict=strict)
    parts = [part for part in (_findings(plan, pages), _changes(plan), *_costs(plan), _values(plan)) if part.rows]
    room = LENGTH_MAX - len(head) - sum(len(part.title) + len(part.before) + CLOSING for part in parts)
    given = fair_shares([sum(len(row) + 1 for row in part.rows) for part in parts], room)
    return head + "".join(_folded(part, share) for part, share in zip(parts, given, strict=True))


def fair_shares(wanted: Sequence[int], room: int) -> list[int]:
    """What each gets of the room: who wants no more than an equal part gets it all, and what it leaves is divided."""
    given = [0] * len(wanted)
    for place, index in enumerate(sorted(range(len(wanted)), key=wanted.__getitem__)):
        given[index] = min(wanted[index], max(room, 0) // (len(wanted) - place))
        room -= given[index]
    return given


def _head(plan: Plan, *, strict: bool) -> str:
    sign = _SIGNS[summary.verdict(plan, strict=strict)]
    rows = [f"| {_STATES[area.state]} | {area.name} | {prose(area.told, 1_500)} |" for area in summary.areas(plan)]
    missing = [f"- not told: {prose(text)}" for text in plan.missing[:10]]
    told = [
        MARKER,
        f"### {sign} Feature plan. {prose(summary.headline(plan, strict=strict))}",
        "",
        prose(summary.about(plan)) + ".",
        "",
        "| | | |",
        "|---|---|---|",
        *rows,
        *(["", *missing] if missing else []),
    ]
    return "\n".join(told) + "\n"


def _folded(part: Part, room: int) -> str:
    shown: list[str] = []
    for row in part.rows:
        room -= len(row) + 1
        if room < 0:
            break
        shown.append(row)
    left = len(part.rows) - len(shown)
    more = f"\n\n{counted(left, part.noun)} left out: `--html` has them all." if left else ""
    start = "<details open>" if part.opened else "<details>"
    rows = "\n".join([*([part.before] if part.before else []), *shown])
    return f"\n{start}<summary>{part.title}</summary>\n\n{rows}{more}\n\n</details>\n"


def _findings(plan: Plan, pages: str) -> Part:
    findings = summary.found(plan)
    refused = any(finding.severity == "error" for finding in findings)
    rows = tuple(_finding(finding, pages) for finding in findings)
    return Part(counted(len(findings), "finding"), "", rows, "finding", opened=refused)


def _finding(finding: Finding, pages: str) -> str:
    link = f"[{finding.code}]({pages}/findings.md#{finding.code.lower()})" if pages else finding.code
    place = f" · {code(finding.place)}" if finding.place else ""
    about = f"{_SEVERITIES[finding.severity]} **{link}** {code(finding.subject)}{place}"
    told = f"{about}<br>{prose(finding.message, 1_000)}"  # on one line: at the start of one, `# ` would be a heading
    if finding.waived:
        return f"{told}<br>Waived: {prose(finding.waived)}\n"
    if "\n" in finding.instead.strip():
        return f"{told}\n\nInstead:\n\n{block(finding.instead)}\n"
    return f"{told}<br>Instead: {prose(finding.instead, 1_000)}\n" if finding.instead else f"{told}\n"


def _changes(plan: Plan) -> Part:
    before = "| | what | change | read by |\n|---|---|---|---|"
    return Part(counted(len(plan.changes), "change"), before, tuple(map(_change, plan.changes)), "change")


def _change(change: Change) -> str:
    was = f"was {code(change.was)}" if change.was else ""
    words = "words only" if change.what == "changed" and not change.meaning else ""
    details = [prose(detail, 300) for detail in change.details[:20]]
    more = f"{len(change.details) - 20:,} more" if len(change.details) > 20 else ""
    told = "<br>".join(part for part in (was, words, *details, more) if part)
    readers = ", ".join(code(reader) for reader in change.served_by[: summary.SHOWN_NAMES])
    others = len(change.served_by) - summary.SHOWN_NAMES
    readers += f" and {others:,} more" if others > 0 else ""
    return f"| {change.what} | {change.kind} {code(change.name)} | {told} | {readers} |"


def _costs(plan: Plan) -> list[Part]:
    views = [_row(summary.cost_of_view(row)) for row in summary.views(plan)]
    services = [_row(summary.cost_of_service(row)) for row in summary.services(plan)]
    commands = plan.costs.backfill if plan.costs else ()
    return [
        Part("What rows cost", _header(summary.VIEW_COSTS), tuple(views), "view"),
        Part("What requests cost", _header(summary.SERVICE_COSTS), tuple(services), "service"),
        Part("After the merge: fill what changed", "", tuple(f"- {code(command)}" for command in commands), "command"),
    ]


def _values(plan: Plan) -> Part:
    if plan.values is None:
        return Part("Values", "", (), "feature")
    rows = [_row(summary.value_row(one)) for one in summary.changed_values(plan.values)]
    told = f"Values of {counted(len(rows), 'feature')}, old → new"
    sample = f"Sample {code(plan.values.sample)}: {counted(plan.values.events, 'event')}, "
    sample += f"{counted(plan.values.queries, 'row')}."
    return Part(told, f"{sample}\n\n{_header(summary.VALUES)}", tuple(rows), "feature")


def _header(names: Sequence[str]) -> str:
    return f"| {' | '.join(names)} |\n|---{'|--:' * (len(names) - 1)}|"


def _row(cells: Sequence[str]) -> str:
    return f"| {code(cells[0])} | {' | '.join(prose(cell) for cell in cells[1:])} |"
