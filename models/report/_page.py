"""The report as one page of HTML that needs nothing else: style and charts inside, no script, no address."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

from models.report import _charts as charts
from models.report._figures import Interval, Report

_DASH = "–"


def page(report: Report) -> str:
    """The whole page; every number on it is in `report`."""
    sections = (
        ("summary", "Summary", _summary(report)),
        ("spans", "Training, tuning, testing", _spans(report)),
        ("ranking", "Ranking", _ranking(report)),
        ("calibration", "Calibration and scores", _calibration(report)),
        ("thresholds", "Thresholds", _thresholds(report)),
        ("explanations", "What the score is made of", _explanations(report)),
        ("stability", "Stability over time", _stability(report)),
        ("slices", "Slices", _slices(report)),
        ("features", "Features", _features(report)),
        ("provenance", "Provenance", _provenance(report)),
    )
    links = "".join(f'<a href="#{name}">{escape(title)}</a>' for name, title, _ in sections)
    body = "".join(f'<section id="{name}"><h2>{escape(title)}</h2>{inner}</section>' for name, title, inner in sections)
    style = resources.files(__package__).joinpath("_style.css").read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.model)} {escape(report.version)}</title><style>{style}</style></head><body>"
        f"<header><h1>{escape(report.model)} <code>{escape(report.version)}</code></h1>"
        f"<p>{escape(report.label)} · feature service <b>{escape(report.service)}</b> · trained by "
        f"<b>{escape(report.trainer)}</b></p><nav>{links}</nav></header><main>{body}</main>"
        "<footer>Every number of this page is in <code>report.json</code>. Intervals are of 95 %, times UTC.</footer>"
        "</body></html>\n"
    )


def _summary(report: Report) -> str:
    quality = report.quality
    review = next(row for row in report.thresholds if (row.threshold_name, row.span) == ("review", "test"))
    block = next(row for row in report.thresholds if (row.threshold_name, row.span) == ("block", "test"))
    cards = (
        ("ROC AUC", number(quality.roc_auc.value, 3), _between(quality.roc_auc, 3)),
        ("PR AUC", number(quality.pr_auc, 3), f"base rate {number(quality.base_rate.value, 3)}"),
        ("Calibration error", number(quality.calibration_error, 4), f"mean score {number(quality.mean_score, 3)}"),
        ("Log loss", number(quality.log_loss, 3), f"Brier {number(quality.brier, 3)}"),
        (
            f"Review from {number(review.threshold, 3)}",
            percent(review.precision.value),
            f"precision; recall {percent(review.recall.value)}",
        ),
        (
            f"Block from {number(block.threshold, 3)}",
            percent(block.precision.value),
            f"precision; recall {percent(block.recall.value)}",
        ),
    )
    shown = "".join(
        f'<div class="card"><span>{escape(name)}</span><b>{escape(value)}</b><small>{escape(more)}</small></div>'
        for name, value, more in cards
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    what = f"<ul class='notes'>{notes}</ul>" if notes else "<p class='fine'>Nothing stands out.</p>"
    return (
        f"<p>On {quality.rows:,} rows of the test span, {quality.positives:,} of them positive, all later than what "
        f"the model was fitted on.</p><div class='cards'>{shown}</div><h3>To look at</h3>{what}"
    )


def _spans(report: Report) -> str:
    rows = (
        (
            span.name,
            charts.moment(span.start_ms),
            charts.moment(span.end_ms),
            f"{span.rows:,}",
            f"{span.positives:,}",
            number(span.base_rate, 4),
            number(span.mean_score, 4),
        )
        for span in report.spans
    )
    head = ("span", "from", "to", "rows", "positives", "base rate", "mean score")
    return (
        "<p>Trees are fitted on the first span, calibration and thresholds on the second, and all figures below are of "
        f"the third. Scores of the fit span are of rows that the trees have seen.</p>{charts.span_chart(report.spans)}"
        f"{table(head, rows, texts=3)}"
    )


def _ranking(report: Report) -> str:
    rows = (
        (number(threshold, 4), number(x, 4), number(y, 4))
        for x, y, threshold in _some(list(zip(report.roc.x, report.roc.y, report.roc.thresholds, strict=True)))
    )
    precision_rows = (
        (number(threshold, 4), number(x, 4), number(y, 4))
        for x, y, threshold in _some(list(zip(report.pr.x, report.pr.y, report.pr.thresholds, strict=True)))
    )
    tables = _two(
        table(("threshold", "false-positive rate", "recall"), rows),
        table(("threshold", "recall", "precision"), precision_rows),
    )
    quality = report.quality
    return (
        _two(
            figure(
                f"ROC, area {number(quality.roc_auc.value, 4)} ({_between(quality.roc_auc, 4)})",
                charts.roc_chart(report.roc, report.thresholds),
            ),
            figure(
                f"Precision and recall, average precision {number(quality.pr_auc, 4)}",
                charts.pr_chart(report.pr, quality, report.thresholds),
            ),
        )
        + _legend((("review", "mark review", "review"), ("block", "mark block", "block")))
        + details("Points of the curves", tables)
    )


def _calibration(report: Report) -> str:
    rows = (
        (
            f"{number(part.low, 4)} to {number(part.high, 4)}",
            f"{part.rows:,}",
            f"{part.positives:,}",
            number(part.mean_score, 4),
            number(part.rate.value, 4),
            _between(part.rate, 4),
        )
        for part in report.reliability
    )
    scores = (
        (f"{number(part.low, 3)} to {number(part.high, 3)}", f"{part.negatives:,}", f"{part.positives:,}")
        for part in report.scores
        if part.negatives or part.positives
    )
    return (
        f"<p>{escape(report.calibration[:1].upper() + report.calibration[1:])}.</p>"
        + _two(
            figure(
                "Reliability: on the line, a score means what it says", charts.reliability_chart(report.reliability)
            ),
            figure("Score by class", charts.score_chart(report.scores, report.thresholds)),
        )
        + _legend(
            (
                ("negative", "negative", "negative"),
                ("positive", "positive", "positive"),
                ("review", "cut review", "review"),
                ("block", "cut block", "block"),
            )
        )
        + table(("scores", "rows", "positives", "mean score", "rate", "interval of the rate"), rows, texts=1)
        + details("Rows by score and class", table(("scores", "negative", "positive"), scores, texts=1))
    )


def _thresholds(report: Report) -> str:
    rows = (
        (
            row.threshold_name,
            row.span,
            number(row.threshold, 4),
            f"{row.true_positives:,}",
            f"{row.false_positives:,}",
            f"{row.false_negatives:,}",
            f"{row.true_negatives:,}",
            share(row.precision),
            share(row.recall),
            number(row.per_day, 1),
        )
        for row in report.thresholds
    )
    head = (
        "threshold",
        "span",
        "from score",
        "true positives",
        "false positives",
        "false negatives",
        "true negatives",
        "precision",
        "recall",
        "flagged a day",
    )
    return (
        f"<p>{escape(_promise(report))} A row of the test span shows whether that holds later. <i>Flagged a day</i> "
        f"counts all rows there are, not only a sample of them.</p>{table(head, rows, texts=2)}"
    )


def _promise(report: Report) -> str:
    per_day, block = report.settings.get("review_per_day"), report.settings.get("block_precision")
    review = (
        f"at most {per_day:g} cases for review a day"
        if isinstance(per_day, (int, float))
        else f"a precision of {report.settings.get('review_precision')} at review"
    )
    return f"Chosen on the tune span for {review} and a precision of {block} at block."


def _explanations(report: Report) -> str:
    explained = report.explanations
    rows = ((part.ref, number(part.mean_size, 4), percent(part.share)) for part in explained.importances)
    return (
        f"<p>{explained.rows:,} rows of the test span, explained by <code>{escape(explained.method)}</code> in "
        f"{escape(explained.output_space)}, compared with {escape(explained.reference)}: base value "
        f"{number(explained.base_value, 4)}. A dot is a row; its colour is the rank of the feature's value.</p>"
        + _two(
            figure("Mean size", charts.importance_chart(explained)), figure("Row by row", charts.swarm_chart(explained))
        )
        + "<p class='legend'><i class='ramp'></i>low to high value <i class='swatch bee none'></i>missing</p>"
        + details("All features", table(("feature", "mean |attribution|", "share"), rows, texts=1))
    )


def _stability(report: Report) -> str:
    rows = (
        (
            charts.moment(part.start_ms),
            f"{part.rows:,}",
            f"{part.positives:,}",
            number(part.base_rate.value, 4),
            number(part.mean_score, 4),
            f"{number(part.roc_auc.value, 3)} ({_between(part.roc_auc, 3)})",
            number(part.pr_auc, 3),
            number(part.psi, 3),
            f"{part.review:,}",
            f"{part.block:,}",
        )
        for part in report.stability
    )
    head = (
        "from",
        "rows",
        "positives",
        "base rate",
        "mean score",
        "ROC AUC",
        "PR AUC",
        "PSI of scores",
        "review",
        "block",
    )
    return (
        _two(
            figure("Does it still rank? ROC AUC with its interval", charts.auc_chart(report.stability)),
            figure("Does it still mean what it says?", charts.rate_chart(report.stability)),
        )
        + _legend((("mean score", "key line1", ""), ("base rate", "key line2", "")))
        + "<p>PSI compares the scores of a period with those of the tune span: below 0.1 alike, above 0.25 another "
        "population. Small periods have large ones by chance.</p>" + table(head, rows, texts=1)
    )


def _slices(report: Report) -> str:
    if not report.slices:
        return "<p>The rows have no groups to cut by.</p>"
    rows = (
        (
            part.group,
            part.value,
            f"{part.rows:,}",
            share(part.base_rate),
            number(part.mean_score, 4),
            f"{number(part.roc_auc.value, 3)} ({_between(part.roc_auc, 3)})",
            share(part.review_precision),
            share(part.review_recall),
        )
        for part in report.slices
    )
    head = ("group", "value", "rows", "base rate", "mean score", "ROC AUC", "precision at review", "recall at review")
    return (
        "<p>Of groups with many values, such as ids, the question is whether the fit span has the same one: a model "
        "that only knows its actors again is worse on new ones. Groups of fewer than 30 rows are left out.</p>"
        + table(head, rows, texts=2)
    )


def _features(report: Report) -> str:
    rows = (
        (
            row.ref,
            row.description,
            number(row.importance, 4),
            percent(row.missing_fit),
            percent(row.missing_test),
            rounded(row.low),
            rounded(row.median),
            rounded(row.high),
            number(row.psi, 3),
        )
        for row in report.features
    )
    head = (
        "feature",
        "what it is",
        "mean |attribution|",
        "missing, fit",
        "missing, test",
        "5 %",
        "median",
        "95 %",
        "PSI",
    )
    return (
        "<p>By importance. Quantiles are of the fit span; PSI compares the test span with it, missing values included."
        f"</p><div class='tall'>{table(head, rows, texts=2)}</div>"
    )


def _provenance(report: Report) -> str:
    settings = ((name, _setting(value)) for name, value in report.settings.items())
    versions = (
        *report.libraries.items(),
        ("training data", report.data_fingerprint[:16]),
        ("code", report.code_fingerprint[:16]),
    )
    return _two(
        table(("setting", "value"), settings, texts=2),
        table(("library or content", "version or hash"), versions, texts=2),
    )


def _setting(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or _DASH
    return _DASH if value is None else str(value)


def figure(caption: str, svg: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"


def details(title: str, inner: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{inner}</details>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, texts: int = 0) -> str:
    """The first `texts` columns hold text, the others numbers."""
    names = "".join(f"<th{_kind(place, texts)}>{escape(name)}</th>" for place, name in enumerate(head))
    body = "".join(
        "<tr>" + "".join(f"<td{_kind(place, texts)}>{escape(cell)}</td>" for place, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f"<div class='scroll'><table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>"


def number(value: float | None, digits: int) -> str:
    """A number with so many digits behind the point; large ones with separators and fewer."""
    if value is None:
        return _DASH
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:,.{digits}f}"


def percent(value: float | None) -> str:
    return _DASH if value is None else f"{value:.1%}"


def rounded(value: float | None) -> str:
    """A value of a feature: four significant digits."""
    if value is None:
        return _DASH
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"


def share(interval: Interval) -> str:
    """A share with its interval, all in per cent."""
    if interval.value is None or interval.low is None or interval.high is None:
        return _DASH
    return f"{interval.value:.1%} ({100 * interval.low:.0f} to {100 * interval.high:.0f})"


def _kind(place: int, texts: int) -> str:
    return "" if place < texts else " class='n'"


def _between(interval: Interval, digits: int) -> str:
    if interval.low is None:
        return _DASH
    return f"{number(interval.low, digits)} to {number(interval.high, digits)}"


def _two(left: str, right: str) -> str:
    return f"<div class='two'><div>{left}</div><div>{right}</div></div>"


def _legend(entries: Sequence[tuple[str, str, str]]) -> str:
    shown = "".join(f"<span><i class='swatch {kind}'></i>{escape(name)}</span>" for name, kind, _ in entries)
    return f"<p class='legend'>{shown}</p>"


def _some(points: Sequence[tuple[float, float, float]], count: int = 25) -> list[tuple[float, float, float]]:
    step = max(1, -(-len(points) // count))
    return [*points[::step], *points[-1:]] if (len(points) - 1) % step else list(points[::step])
