"""What is shown of the pages that were read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from actor_risk.reporting.words import counted
from actor_risk.watching.recent import Key, Recent, quantile

STAGES = ("parse", "wait", "features", "score", "explain", "publish", "total")
VERDICTS = (("allow", "green"), ("review", "yellow"), ("block", "red"))
FEATURES_SHOWN = 6
PSI_CHANGED, PSI_ANOTHER = 0.1, 0.25

_BARS = "▁▂▃▄▅▆▇█"
_MODEL = ("model", "version", "mode")
_LOST = ("dropped_full", "dropped_failed", "unshippable", "lost_unshipped")
_MIB = 1 << 20


def screen(url: str, recent: Recent, when: datetime) -> RenderableType:
    """Everything, from the whole to its parts."""
    side_by_side = Table.grid(padding=(0, 6))
    side_by_side.add_row(_stages(recent), _ages(recent))
    return Group(_head(url, recent, when), Text(), side_by_side, Text(), _models(recent), Text(), _rest(recent))


def _head(url: str, recent: Recent, when: datetime) -> RenderableType:
    requests = recent.per_s("actor_risk_requests_total", ["status"])
    failing = sum(rate for (status,), rate in requests.items() if status.startswith("5"))
    head = Text(url, style="bold")
    head.append(f"  {counted(len(recent.replicas), 'replica')}  {when:%Y-%m-%d %H:%M:%S} UTC", style="dim not bold")
    rate = Text(f"{sum(requests.values()):>9,.1f} requests/s  ")
    rate.append(_sparkline(recent.history), style="green")
    rate.append(f"  {failing:,.1f}/s fail", style="red" if failing else "dim")
    if recent.is_idle:
        rate.append("  nothing is asked now: what follows is since the start", style="dim")
    return Group(head, rate)


def _stages(recent: Recent) -> Table:
    table = Table(header_style="dim", box=None, padding=(0, 2))
    table.add_column("stage")
    for name in ("p50", "p99", "mean"):
        table.add_column(name, justify="right")
    buckets = recent.changes("actor_risk_stage_seconds_bucket", ["stage", "le"], _answered)
    sums = recent.changes("actor_risk_stage_seconds_sum", ["stage"], _answered)
    counts = recent.changes("actor_risk_stage_seconds_count", ["stage"], _answered)
    for stage in STAGES:
        of_stage = {end: count for (found, end), count in buckets.items() if found == stage}
        mean = _ratio(sums.get((stage,), 0.0), counts.get((stage,), 0.0))
        style = "bold" if stage == "total" else ""
        table.add_row(stage, *map(_ms, (quantile(of_stage, 0.5), quantile(of_stage, 0.99), mean)), style=style)
    return table


def _models(recent: Recent) -> Table:
    table = Table(expand=True, header_style="dim")
    for name in ("model", "version", "as"):
        table.add_column(name, overflow="fold")
    for name in ("answers/s", "p99", *(name for name, _ in VERDICTS), "PSI", "missing", "unknown", "degraded"):
        table.add_column(name, justify="right")
    verdicts = recent.changes("actor_risk_verdicts_total", [*_MODEL, "verdict"])
    rates = recent.per_s("actor_risk_verdicts_total", _MODEL)
    totals = recent.changes("actor_risk_stage_seconds_bucket", [*_MODEL, "le"], lambda of: of.get("stage") == "total")
    statuses = recent.changes("actor_risk_features_read_total", [*_MODEL, "status"])
    unknown = recent.changes("actor_risk_unknown_actors_total", _MODEL)
    degraded = recent.changes("actor_risk_degraded_total", _MODEL)
    indices = recent.now("actor_risk_score_psi", _MODEL, max)
    for served in _served(recent, {key[:3] for key in verdicts}):
        of_model = {verdict: count for (*key, verdict), count in verdicts.items() if tuple(key) == served}
        answers = sum(of_model.values())
        read = {status: count for (*key, status), count in statuses.items() if tuple(key) == served}
        latency = quantile({end: count for (*key, end), count in totals.items() if tuple(key) == served}, 0.99)
        table.add_row(
            *served,
            f"{rates.get(served, 0.0):,.1f}",
            _ms(latency),
            *(Text(_percent(_ratio(of_model.get(name, 0.0), answers)), style=style) for name, style in VERDICTS),
            _psi(indices.get(served)),
            _percent(_ratio(sum(read.values()) - read.get("present", 0.0), sum(read.values()))),
            _percent(_ratio(unknown.get(served, 0.0), answers)),
            _percent(_ratio(degraded.get(served, 0.0), answers)),
        )
    return table


def _served(recent: Recent, answering: set[Key]) -> list[Key]:
    """Who is served, by the aliases where nobody has asked yet."""
    known = {key[:2] for key in answering}
    idle = {
        (model, version, alias)
        for model, version, alias in recent.now("actor_risk_model_info", ["model", "version", "alias"], max)
        if (model, version) not in known
    }
    return sorted(answering | idle)


def _ages(recent: Recent) -> Table:
    table = Table(header_style="dim", box=None, padding=(0, 2))
    table.add_column("age of the newest value")
    for name in ("p50", "p90"):
        table.add_column(name, justify="right")
    buckets = recent.changes("actor_risk_view_age_seconds_bucket", ["view", "le"])
    for view in sorted({view for view, _ in buckets}):
        of_view = {end: count for (found, end), count in buckets.items() if found == view}
        table.add_row(view, _span(quantile(of_view, 0.5)), _span(quantile(of_view, 0.9)))
    return table


def _missing(recent: Recent) -> str:
    """The features that are missing most."""
    values = recent.changes("actor_risk_feature_values_total", ["model", "feature", "status"])
    read: dict[Key, float] = defaultdict(float)
    absent: dict[Key, float] = defaultdict(float)
    for (*key, status), count in values.items():
        read[tuple(key)] += count
        absent[tuple(key)] += 0 if status == "present" else count
    shares = sorted(((absent[key] / count, key) for key, count in read.items() if absent[key]), reverse=True)
    return ", ".join(f"{feature} {share:.0%}" for share, (_, feature) in shares[:FEATURES_SHOWN]) or "none"


def _rest(recent: Recent) -> Table:
    table = Table.grid(padding=(0, 2))
    per_s = recent.per_s
    table.add_row("missing most", _missing(recent))
    table.add_row("degraded", _named(per_s("actor_risk_degraded_total", ["reason"])))
    table.add_row("problems", _named(per_s("actor_risk_problems_total", ["problem"])))
    table.add_row("events sent", _named(per_s("actor_risk_events_taken_total", ["status"])))
    for title, name in (
        ("refused", "actor_risk_refused_total"),
        ("not published", "actor_risk_event_publish_failures_total"),
        ("shadows dropped", "actor_risk_shadows_dropped_total"),
        ("repeats", "actor_risk_idempotent_repeats_total"),
    ):
        table.add_row(title, f"{sum(per_s(name).values()):,.1f}/s")
    table.add_row("online store", _store(recent))
    table.add_row("decision log", _log(recent))
    for name, page in recent.replicas.items():
        memory, under_way, waiting = (
            sum(page.of(metric).values())
            for metric in ("process_resident_memory_bytes", "actor_risk_under_way", "actor_risk_waiting")
        )
        told = f"{memory / _MIB:,.0f} MiB, {under_way:,.0f} under way, {waiting:,.0f} waiting"
        table.add_row("replica", f"{name}  {told}".strip())
    return table


def _store(recent: Recent) -> Text:
    """A replica whose breaker is open asks nothing; of a cluster, each replica leaves out the shards that it misses."""
    is_open = any(recent.now("actor_risk_breaker_open", (), max).values())
    shards = int(max(recent.now("actor_risk_shards_away", (), max).values(), default=0))
    if is_open:
        return Text("does not answer: the breaker is open", style="red")
    if shards:
        return Text(f"{counted(shards, 'shard')} away: what is there counts as not found", style="red")
    return Text("answers")


def _log(recent: Recent) -> Text:
    rates = recent.per_s("actor_risk_decision_log_decisions_total", ["outcome"])
    totals = recent.now("actor_risk_decision_log_decisions_total", ["outcome"], lambda a, b: a + b)
    if not totals:
        return Text("none")
    waiting = sum(recent.now("actor_risk_decision_log_waiting", (), lambda a, b: a + b).values())
    unshipped = sum(recent.now("actor_risk_decision_log_unshipped_bytes", (), max).values())
    logged, shipped = (rates.get((name,), 0.0) for name in ("logged", "shipped"))
    told = Text(f"{logged:,.1f}/s logged, {shipped:,.1f}/s shipped, {waiting:,.0f} waiting, ")
    told.append(f"{unshipped / _MIB:,.1f} MiB to ship")
    lost = sum(totals.get((name,), 0.0) for name in _LOST)
    return told.append(f", {lost:,.0f} lost", style="red") if lost else told


def _answered(labels: Mapping[str, str]) -> bool:
    """Nobody waits for a shadow."""
    return labels.get("mode") != "shadow"


def _named(rates: Mapping[Key, float]) -> str:
    return ", ".join(f"{rate:,.1f}/s {name.replace('_', ' ')}" for (name,), rate in rates.items() if rate) or "none"


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1_000:,.2f} ms"


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} s"


def _psi(index: float | None) -> Text:
    if index is None:
        return Text("–")
    colour = "red" if index >= PSI_ANOTHER else "yellow" if index >= PSI_CHANGED else "green"
    return Text(f"{index:.3f}", style=colour)


def _sparkline(values: list[float]) -> str:
    most = max(values, default=0.0)
    return "".join(_BARS[round((len(_BARS) - 1) * value / most)] if most else _BARS[0] for value in values)
