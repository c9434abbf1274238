"""The report as one HTML file: no script, nothing fetched, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import resources

from actor_risk.audit.charts import over_time, scatter
from actor_risk.audit.report import AuditReport, Example, FeatureReport, Verdict
from actor_risk.audit.words import OUTCOMES, REASONS
from actor_risk.reporting.page import Kind, Tile, page, tiles
from actor_risk.reporting.words import counted, duration, exact, moment, number, share

_VERDICTS: dict[Verdict, tuple[Kind, str]] = {
    "equal": ("good", "Served equals recomputed"),
    "differs": ("bad", "Served differs from recomputed"),
    "nothing_compared": ("none", "Nothing was compared"),
}


def html_report(report: AuditReport) -> str:
    """The page."""
    style = resources.files("actor_risk.audit").joinpath("report.css").read_text()
    kind, headline = _VERDICTS[report.verdict]
    return page(
        what="Feature audit",
        headline=headline,
        kind=kind,
        about=f"Decisions from {moment(report.from_ms)} to {moment(report.to_ms)} UTC",
        body=_tiles(report)
        + _pictures(report.differing_features)
        + _apart(report)
        + _all_features(report)
        + _legend(report),
        style=style,
    )


def _tiles(report: AuditReport) -> str:
    compared = sum(feature.compared for feature in report.features)
    equal = sum(feature.equal for feature in report.features)
    late = sum(feature.late for feature in report.features)
    return tiles(
        Tile("decisions compared", number(report.compared_decisions), f"of {number(report.decisions)} logged"),
        Tile("values equal", share(equal / compared) if compared else "–", f"{number(equal)} of {number(compared)}"),
        Tile("features that differ", number(len(report.differing_features)), f"of {number(len(report.features))}"),
        Tile("values explained as late", number(late), "not counted as wrong"),
        Tile("scored events added", number(report.own_events), "that history did not have"),
    )


def _pictures(features: Sequence[FeatureReport]) -> str:
    if not features:
        return ""
    return "<section><h2>Features that differ</h2>" + "".join(_card(feature) for feature in features) + "</section>"


def _card(feature: FeatureReport) -> str:
    view, _, name = feature.feature.partition(":")
    facts = [f"<b>{share(feature.mismatch_rate)}</b> of {number(feature.compared)} comparisons differ"]
    for outcome in ("mismatched", "only_online", "only_offline", "late"):
        count = getattr(feature, outcome)
        if count:
            facts.append(f'<span class="key {outcome}"></span>{number(count)} {outcome.replace("_", " ")}')
    if feature.worst:
        facts.append(f"worst difference {number(feature.worst)}")
    if feature.smape is not None:
        facts.append(f"SMAPE {share(feature.smape)}")
    drawn = ""
    if any(point.online is not None or point.offline is not None for point in feature.points):
        drawn = f'<div class="charts">{scatter(feature.points)}{over_time(feature.points)}</div>'
    return (
        f'<article id="{escape(feature.service)}.{escape(feature.feature)}"><h3><span>{escape(view)}:</span>'
        f"{escape(name)}</h3><p class='service'>{escape(feature.service)} · {_tolerance(feature)}</p>"
        f"<p class='facts'>{' · '.join(facts)}</p>{drawn}{_examples(feature.examples)}</article>"
    )


def _tolerance(feature: FeatureReport) -> str:
    return "compared exactly" if not feature.tolerance else f"equal within {feature.tolerance:g}"


def _examples(examples: Sequence[Example]) -> str:
    rows = "".join(
        f'<tr><td class="o"><span class="key {one.outcome}"></span>{one.outcome.replace("_", " ")}</td>'
        f'<td class="n">{escape(exact(one.online))}</td><td class="n">{escape(exact(one.offline))}</td>'
        f"<td>{escape(one.status)}</td><td class='n'>{duration(one.age_ms)}</td>"
        f"<td class='o'>{moment(one.as_of_ms)}<br><code>{escape(one.decision_id)}</code></td>"
        f"<td>{_entities(one)}</td></tr>"
        for one in examples
    )
    head = "<th>outcome</th><th class='n'>served</th><th class='n'>recomputed</th><th>status</th><th class='n'>age</th>"
    head += "<th>as of, UTC, and decision</th><th>entities</th>"
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _entities(example: Example) -> str:
    return ", ".join(f"{escape(key)}&nbsp;<b>{escape(str(value))}</b>" for key, value in example.entities.items())


def _apart(report: AuditReport) -> str:
    rows = [(counted(count, "decision"), reason) for reason, count in report.set_apart.items()]
    beyond: dict[str, tuple[int, int]] = {}
    for feature in report.features:
        for reason, count in feature.not_compared.items():
            features, values = beyond.get(reason, (0, 0))
            beyond[reason] = (features + 1, values + count)
    rows += [
        (f"{counted(values, 'value')} of {counted(features, 'feature')}", reason)
        for reason, (features, values) in beyond.items()
    ]
    if report.cut_off_lines:
        rows.append((counted(report.cut_off_lines, "line"), "cut_off"))
    if report.unreadable_lines:
        rows.append((counted(report.unreadable_lines, "line"), "unreadable"))
    told = {**REASONS, "cut_off": "the last line of a file whose server was killed, or writes it now"}
    told["unreadable"] = "no line of a decision log, or of one that this version does not know"
    body = "".join(
        f"<tr><td class='n'>{how_many}</td><td><code>{escape(reason)}</code></td>"
        f"<td>{escape(told.get(reason, ''))}</td></tr>"
        for how_many, reason in rows
    )
    ends = ", ".join(f"<code>{escape(end.source)}</code> to {moment(end.end_ms)}" for end in report.sources)
    table = (
        f'<div class="wide"><table><tbody>{body}</tbody></table></div>' if rows else "<p>Everything was compared.</p>"
    )
    until = f"<p>History was taken to be complete: {ends} (UTC).</p>" if ends else ""
    return f"<section><h2>Not compared</h2>{table}{until}</section>"


def _all_features(report: AuditReport) -> str:
    head = "<th>feature</th><th></th>" + "".join(
        f"<th class='n'>{name}</th>"
        for name in ("compared", "equal", "late", "mismatched", "only online", "only offline", "worst", "SMAPE")
    )
    sections = []
    for service in dict.fromkeys(feature.service for feature in report.features):
        rows = "".join(_row(feature) for feature in report.features if feature.service == service)
        sections.append(
            f"<h3>{escape(service)}</h3><div class='wide'><table class='all'><thead><tr>{head}</tr></thead>"
            f"<tbody>{rows}</tbody></table></div>"
        )
    return f"<section><h2>All features</h2>{''.join(sections)}</section>" if sections else ""


def _row(feature: FeatureReport) -> str:
    name = escape(feature.feature)
    if feature.differing:
        name = f'<a href="#{escape(feature.service)}.{name}">{name}</a>'
    counts = [feature.compared, feature.equal, feature.late, feature.mismatched]
    cells = "".join(
        f'<td class="n{"" if count else " zero"}">{number(count)}</td>'
        for count in (*counts, feature.only_online, feature.only_offline)
    )
    smape = "–" if feature.smape is None else share(feature.smape)
    kind = "bad" if feature.differing else "ok" if feature.compared else "none"
    return (
        f'<tr class="{kind}"><td>{name}</td><td>{_bar(feature)}</td>{cells}'
        f'<td class="n">{number(feature.worst)}</td><td class="n">{smape}</td></tr>'
    )


def _bar(feature: FeatureReport) -> str:
    """The outcomes as a bar of fixed length; what there is of an outcome can be seen, however little it is."""
    if not feature.compared:
        return '<div class="bar"></div>'
    parts = "".join(
        f'<i class="{outcome}" style="flex:{getattr(feature, outcome)} 0 2px"></i>'
        for outcome in ("equal", "late", "only_online", "only_offline", "mismatched")
        if getattr(feature, outcome)
    )
    return f'<div class="bar">{parts}</div>'


def _legend(report: AuditReport) -> str:
    outcomes = "".join(
        f'<li><span class="key {name}"></span><b>{name.replace("_", " ")}</b>: {escape(told)}</li>'
        for name, told in OUTCOMES.items()
    )
    return (
        f"<section class='legend'><h2>How to read this</h2><ul>{outcomes}</ul>"
        "<p>Each served value stands beside the one that the offline store gives for the same entities as of the same "
        "time. Counts, extremes, first, last and distinct counts must be equal; sums and what is made of them within "
        f"{report.tolerance:g} (relative, absolute below 1). SMAPE is the mean of 2·|a−b| / (|a|+|b|) over the "
        "comparisons with two values: 0 % to 200 %. Points on the edge of a picture have a value on one side only.</p>"
        f"<p>Log: <code>{escape(report.log)}</code>. A feature may differ in {share(report.mismatch_rate_max)} of its "
        "comparisons.</p></section>"
    )
