"""`actor-risk stream --top`: the workers of a command on one screen."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from actor_risk.streaming.rates import Recent
from actor_risk.streaming.report import StreamStatus, WorkerReport

_BARS = "▁▂▃▄▅▆▇█"
_POINTS = 30
_STYLES = {"working": "green", "idle": "cyan", "starting": "yellow", "retrying": "red"}
_PARTITIONS_SHOWN = 6
NUMBERS = ("events/s", "behind", "log to row p50", "p99", "batch", "batch ms", "conflicts", "retries", "put aside")
NOT_FOLDED = ("replayed", "duplicates", "too_late", "owned_by_batch", "without_key")


def screen(status: StreamStatus, recent: Recent) -> RenderableType:
    """What is shown for a status that `recent` has been told."""
    parts: list[RenderableType] = [_head(status, recent), _workers(status, recent), _totals(status, recent)]
    trouble = {name: report.trouble for name, report in status.workers.items() if report.trouble} | status.trouble
    parts.extend(Text(f"{name}: {why}", style="red") for name, why in sorted(trouble.items()))
    return Group(*parts)


def line(status: StreamStatus, recent: Recent) -> str:
    """The same on one line."""
    behind = sum(report.behind for report in status.workers.values())
    text = f"{status.records:,} events ({recent.records_per_s():,.0f}/s), {behind:,} behind"
    if status.dead_letters:
        text += f", {status.dead_letters:,} dead letters"
    trouble = [report.trouble for report in status.workers.values() if report.trouble] + list(status.trouble.values())
    return f"{text}; {trouble[0].splitlines()[0]}" if trouble else text


def _head(status: StreamStatus, recent: Recent) -> RenderableType:
    when = datetime.fromtimestamp(status.at_ms / 1_000, UTC)
    restarts = sum(status.restarts.values())
    head = Text(f"group {status.group}", style="bold")
    head.append(f"  {len(status.workers)} workers", style="not bold")
    if restarts:
        head.append(f"  {restarts} restarts", style="yellow")
    head.append(f"  {when:%Y-%m-%d %H:%M:%S} UTC", style="dim not bold")
    rates = recent.history(_POINTS)
    rate = Text(f"{recent.records_per_s():>9,.0f} events/s  ")
    rate.append(_sparkline(rates), style="green")
    rate.append(f"  {status.records:,} done, {sum(r.behind for r in status.workers.values()):,} behind")
    fresh = Text("log to row: ")
    fresh.append(_quantiles("since_log_s", recent))
    fresh.append("   event to row: ")
    fresh.append(_quantiles("since_event_s", recent))
    return Group(head, rate, fresh)


def _workers(status: StreamStatus, recent: Recent) -> Table:
    table = Table(expand=True, header_style="dim")
    for name in ("worker", "state", "partitions"):
        table.add_column(name, overflow="fold")
    for name in (
        "events/s",
        "behind",
        "log to row p50",
        "p99",
        "batch",
        "batch ms",
        "conflicts",
        "retries",
        "put aside",
    ):
        table.add_column(name, justify="right")
    for name, report in sorted(status.workers.items()):
        table.add_row(
            f"{name} ({report.pid})" if report.pid else name,
            Text(report.state, style=_STYLES.get(report.state, "")),
            _partitions(report),
            f"{recent.records_per_s(name):,.0f}",
            f"{report.behind:,}",
            *(_ms(recent.quantile("since_log_s", q, name)) for q in (0.5, 0.99)),
            _number(recent.quantile("batch_records", 0.5, name)),
            _ms(recent.quantile("batch_s", 0.5, name)),
            f"{report.conflicts:,}",
            f"{report.retries:,}",
            f"{report.put_aside:,}",
        )
    return table


def _totals(status: StreamStatus, recent: Recent) -> Table:
    reports = list(status.workers.values())
    table = Table.grid(padding=(0, 2))
    table.add_row("folded", f"{sum(report.folded for report in reports):,} events into rows, once for each view")
    table.add_row("not folded", _named({name: sum(getattr(r, name) for r in reports) for name in NOT_FOLDED}))
    for title, field in (("dead letters", "dead_letters"), ("rows begun anew", "rows_refused")):
        table.add_row(title, _named(_by_reason([getattr(report, field) for report in reports])))
    table.add_row(
        "rows", f"{sum(r.rows_written for r in reports):,} written, {sum(r.rows_large for r in reports):,} large"
    )
    shares = recent.stage_shares()
    table.add_row("a batch's time", ", ".join(f"{stage} {share:.0%}" for stage, share in shares.items()) or "–")
    ahead = max((report.event_time_ahead_s for report in reports if report.records), default=None)
    table.add_row(
        "newest event",
        "–" if ahead is None else f"{abs(ahead):,.1f} s {'ahead of' if ahead > 0 else 'behind'} the clock",
    )
    for name in ("records_lost", "commits_rejected"):
        if count := sum(getattr(report, name) for report in reports):
            table.add_row(Text(name.replace("_", " "), style="yellow"), f"{count:,}")
    return table


def _against_the_clock(ahead_s: float) -> str:
    return f"{abs(ahead_s):,.1f} s {'ahead of' if ahead_s > 0 else 'behind'} the clock"


def _partitions(report: WorkerReport) -> str:
    shown = ", ".join(report.partitions[:_PARTITIONS_SHOWN]) or "–"
    more = len(report.partitions) - _PARTITIONS_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _quantiles(field: str, recent: Recent) -> str:
    return " ".join(f"p{round(q * 100)} {_ms(recent.quantile(field, q))}" for q in (0.5, 0.9, 0.99))


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds * 1_000:,.0f} ms" if seconds < 10 else f"{seconds:,.0f} s"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _sparkline(values: list[float]) -> str:
    most = max(values, default=0.0)
    return "".join(_BARS[round((len(_BARS) - 1) * value / most)] if most else _BARS[0] for value in values)


def _by_reason(parts: list[dict[str, int]]) -> dict[str, int]:
    return {
        reason: sum(part.get(reason, 0) for part in parts) for reason in sorted({r for part in parts for r in part})
    }


def _named(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count) or "none"
