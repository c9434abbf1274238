"""The report as one HTML file: everything, with a picture of each feature whose values are others."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import resources

from actor_risk.changes.findings import Finding
from actor_risk.changes.plan import Change, Plan
from actor_risk.changes.report import summary
from actor_risk.changes.report.pictures import histograms
from actor_risk.changes.values import QUANTILES, FeatureValues, Profile
from actor_risk.reporting.page import Kind, Tile, page, tiles
from actor_risk.reporting.words import counted, lines, number, one_line, share

PICTURES_MAX = 200
"""Features with a picture; the table has all."""

_KINDS: dict[summary.Verdict, Kind] = {"refused": "bad", "warned": "none", "passes": "good", "unchanged": "good"}
_SIGNS = {"bad": "✗", "warned": "!", "good": "✓", "unknown": "?"}


def html(plan: Plan, *, strict: bool = False) -> str:
    """The page."""
    plan = summary.without_personal_values(plan)
    return page(
        what="Feature plan",
        headline=summary.headline(plan, strict=strict),
        kind=_KINDS[summary.verdict(plan, strict=strict)],
        about=summary.about(plan),
        body="".join(part(plan) for part in (_tiles, _areas, _findings, _changes, _costs, _values, _missing)),
        style=resources.files("actor_risk.changes.report").joinpath("report.css").read_text(),
    )


def _tiles(plan: Plan) -> str:
    counts = {severity: len(summary.of_severity(plan, severity)) for severity in summary.SEVERITIES}
    waived = sum(bool(finding.waived) for finding in plan.findings)
    means = sum(change.meaning for change in plan.changes)
    shown = [
        Tile("errors", number(counts["error"]), "refused by plan and apply"),
        Tile("warnings", number(counts["warning"]), "refused by --strict"),
        Tile("notes", number(counts["note"]), f"{number(waived)} waived"),
        Tile("changes", number(len(plan.changes)), f"{number(means)} of values, the rest of words"),
    ]
    if plan.values is not None:
        moved = sum(bool(values.changed) for values in plan.values.features)
        shown.append(Tile("features with other values", number(moved), f"of {number(len(plan.values.features))}"))
    return tiles(*shown)


def _areas(plan: Plan) -> str:
    rows = "".join(
        f'<tr><td class="{area.state}">{_SIGNS[area.state]}</td><td>{escape(area.name)}</td>'
        f"<td>{escape(one_line(area.told, 3_000))}</td></tr>"
        for area in summary.areas(plan)
    )
    table = f'<table class="areas"><tbody>{rows}</tbody></table>'
    return f'<section><h2>In short</h2><div class="wide">{table}</div></section>'


def _findings(plan: Plan) -> str:
    cards = "".join(map(_finding, summary.found(plan)))
    return f"<section><h2>Findings</h2>{cards}</section>" if cards else ""


def _finding(finding: Finding) -> str:
    place = f' <span class="soft"><code>{_line(finding.place)}</code></span>' if finding.place else ""
    told = f"<p>{_prose(finding.message)}</p>"
    if finding.waived:
        told += f'<p class="soft">Waived: {_line(finding.waived, 1_000)}</p>'
    elif finding.instead:
        told += _instead(finding.instead)
    return (
        f'<article class="{finding.severity}"><h3>{finding.severity} {_line(finding.code)} '
        f"<code>{_line(finding.subject)}</code></h3><p class='service'>{escape(summary.title(finding.code))}{place}</p>"
        f"{told}</article>"
    )


def _instead(text: str) -> str:
    if "\n" not in text.strip():
        return f"<p>Instead: {_prose(text)}</p>"
    return f"<p>Instead:</p><pre>{escape(lines(text))}</pre>"


def _changes(plan: Plan) -> str:
    rows = [_change(change) for change in plan.changes]
    return _section("Changes", ("", "what", "change", "read by", "place"), rows, numbers=False)


def _change(change: Change) -> str:
    was = [f"was {change.was}"] if change.was else []
    words = ["words only: no value changes"] if change.what == "changed" and not change.meaning else []
    items = "".join(f"<li>{_line(detail, 1_000)}</li>" for detail in (*was, *words, *change.details))
    details = f"<ul class='details'>{items}</ul>" if items else ""
    return (
        f"<tr><td class='o'>{change.what}</td><td>{change.kind} <code>{_line(change.name)}</code></td>"
        f"<td>{details}</td><td>{escape(summary.names(change.served_by, 12))}</td>"
        f"<td><code>{_line(change.place)}</code></td></tr>"
    )


def _costs(plan: Plan) -> str:
    views = [_cells(summary.cost_of_view(row)) for row in summary.views(plan)]
    services = [_cells(summary.cost_of_service(row)) for row in summary.services(plan)]
    commands = "\n".join(one_line(command, 1_000) for command in (plan.costs.backfill if plan.costs else ()))
    filling = f"<section><h2>After the merge: fill what changed</h2><pre>{escape(commands)}</pre></section>"
    return (
        _section("What rows cost", summary.VIEW_COSTS, views)
        + _section("What requests cost", summary.SERVICE_COSTS, services)
        + (filling if commands else "")
    )


def _values(plan: Plan) -> str:
    if plan.values is None:
        return ""
    changed = summary.changed_values(plan.values)
    sample = f"{counted(plan.values.events, 'event')}, {counted(plan.values.queries, 'row')}"
    told = (
        f"<p class='soft'>Sample <code>{_line(plan.values.sample)}</code>: {sample}. Bars lie between quantiles of "
        "both versions together, each drawn as wide as the next.</p>"
    )
    cards = "".join(_card(values) for values in changed[:PICTURES_MAX])
    table = _section("Values in numbers", summary.VALUES, [_cells(summary.value_row(values)) for values in changed])
    return (f"<section><h2>Values, old over new</h2>{told}{cards}</section>" if cards else "") + table


def _card(values: FeatureValues) -> str:
    facts = [f"{number(values.changed)} rows with another value"]
    if values.drift is not None:
        facts.append(f"drift (PSI) {values.drift:.3f}")
    if summary.masked(values):
        facts.append("tagged pii: counts only")
    view, _, name = values.feature.partition(":")
    return (
        f"<article><h3><span>{_line(view)}:</span>{_line(name)}</h3><p class='facts'>{' · '.join(facts)}</p>"
        f'<div class="charts">{histograms(values)}{_numbers(values)}</div></article>'
    )


def _numbers(values: FeatureValues) -> str:
    """Counts, and of values that are nobody's secret the quantiles."""
    old, new = _facts(values.old), _facts(values.new)
    rows = "".join(_cells((name, old.get(name, "–"), new.get(name, "–"))) for name in {**old, **new})
    head = "<th></th><th class='n'>old</th><th class='n'>new</th>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _facts(side: Profile | None) -> dict[str, str]:
    if side is None:
        return {}
    facts = {"rows": number(side.rows), "nulls": summary.null_share(side), "distinct": number(side.distinct)}
    facts |= {"infinite": number(side.infinite)} if side.infinite else {}
    if side.masked:
        return facts
    quantiles = dict(zip((share(part) for part in QUANTILES), side.quantiles, strict=False))
    told = {"lowest": side.low, **quantiles, "highest": side.high, "mean": side.mean}
    told |= {"correlation with the label": side.label_correlation, "AUC alone": side.label_auc}
    return facts | {name: number(value) for name, value in told.items() if value is not None}


def _missing(plan: Plan) -> str:
    told = "".join(f"<li>{_line(text, 1_000)}</li>" for text in plan.missing)
    return f"<section class='legend'><h2>Not told</h2><ul>{told}</ul></section>" if told else ""


def _section(title: str, header: Sequence[str], rows: Sequence[str], *, numbers: bool = True) -> str:
    if not rows:
        return ""
    kind = " class='n'" if numbers else ""
    head = f"<th>{header[0]}</th>" + "".join(f"<th{kind}>{name}</th>" for name in header[1:])
    return (
        f'<section><h2>{title}</h2><div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _cells(cells: Sequence[str]) -> str:
    first, *others = cells
    told = "".join(f"<td class='n'>{escape(cell)}</td>" for cell in others)
    return f"<tr><td>{escape(first)}</td>{told}</tr>"


def _line(text: str, length_max: int = 300) -> str:
    return escape(one_line(text, length_max))


def _prose(text: str) -> str:
    """A line, with what stands between backticks as code."""
    parts = escape(one_line(text, 2_000)).split("`")
    if len(parts) % 2 == 0:
        return "`".join(parts)
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))
