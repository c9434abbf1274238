"""What a person sees of a backfill: the plan, one bar, and a table at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from actor_risk.backfilling.command import CommandReport
from materialize.backfill import JobStatus, Plan, ViewReport

HOLES_SHOWN = 5
COLUMNS_SHOWN = 3

_WORDS = {"waiting": "waiting for", "looking": "reading", "writing": "writing", "done": "done"}
_COLOURS = {"done": "green", "nothing to do": "green", "stopped": "yellow"}


def show_plan(shown: Console, plans: Sequence[Plan], where: str | None) -> None:
    """What there is to do for each view. `where`: it will be done; None for a dry run."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, side in (("view", "left"), ("history that is read", "left"), ("rows", "right"), ("to do", "left")):
        table.add_column(title, justify=side, overflow="fold")  # type: ignore[arg-type]
    table.add_column("about", justify="right")
    for plan in plans:
        table.add_row(plan.view, str(plan.read), f"≈ {plan.rows:,}", _to_do(plan), _seconds(plan.seconds_estimate))
    shown.print(table)
    for plan in plans:
        for note in _notes(plan):
            shown.print(f"  [yellow]{plan.view}:[/] {note}", soft_wrap=True)
    known = [plan.seconds_estimate for plan in plans if not plan.is_done]
    if known and all(seconds is not None for seconds in known):
        shown.print(f"about {_seconds(sum(seconds or 0 for seconds in known))} if it goes as fast as the last time")
    elif known:
        shown.print("how long it takes is known after the first time")
    shown.print("[dim]nothing was written: a dry run[/]" if where is None else f"[dim]{where}[/]")


@contextmanager
def one_bar(shown: Console, plans: Sequence[Plan]) -> Iterator[Callable[[JobStatus], None]]:
    """One bar for the whole command, told of one view after the other."""
    weights = {plan.view: max(plan.rows_to_do, 1) for plan in plans}
    past: dict[str, int] = {}
    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]:,} rows"),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    began_s = time.monotonic()
    with Progress(*columns, console=shown) as progress:
        task = progress.add_task("backfill", total=sum(weights.values()), rows=0, rate=0.0)
        done = 0.0

        def tell(status: JobStatus) -> None:
            nonlocal done
            past[status.view] = status.rows
            rows = sum(past.values())
            part = f" {status.parts_done}/{status.parts}" if status.parts else ""
            progress.update(
                task,
                description=f"{status.view}: {_WORDS[status.phase]}{part}",
                completed=done + status.share * weights[status.view],
                rows=rows,
                rate=rows / max(time.monotonic() - began_s, 1e-3),
            )
            if status.phase == "done":
                done += weights[status.view]

        yield tell


def show_report(shown: Console, report: CommandReport) -> None:
    """What became of each view."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("view", overflow="fold")
    table.add_column("outcome")
    for title in ("events", "rows", "verified", "no key", "time", "rows/s"):
        table.add_column(title, justify="right")
    for view in report.views:
        counts, colour = view.counts, _COLOURS.get(view.outcome, "red")
        table.add_row(
            view.view,
            f"[{colour}]{view.outcome}[/]",
            *(f"{number:,}" for number in (counts.events, counts.rows, counts.verified, counts.skipped)),
            _seconds(view.seconds),
            f"{view.rows_per_second:,.0f}",
        )
    shown.print(table)
    for view in report.views:
        for line in (*_quality(view), *view.lost):
            shown.print(f"  [yellow]{view.view}:[/] {line}", soft_wrap=True)


def _to_do(plan: Plan) -> str:
    if plan.is_done:
        return "nothing: all is done"
    if not plan.is_stream:
        return f"{len(plan.to_write)} of {len(plan.chunks)} chunks"
    shards = plan.shards if plan.sides is None else len(plan.sides)
    return f"read {len(plan.to_look)} of {len(plan.chunks)} chunks, write {shards} of {plan.shards} shards"


def _notes(plan: Plan) -> list[str]:
    notes = []
    if plan.known.disbelieved:
        notes.append(
            f"{plan.known.disbelieved} done parts count no longer: Redis lost their rows, or their files changed"
        )
    if plan.done_before:
        notes.append("done before: " + _shortened([str(span) for span in plan.done_before]))
    if plan.holes:
        notes.append("holes in it: " + _shortened([str(hole) for hole in plan.holes]))
    if not plan.rows:
        notes.append("history has no rows there")
    return notes


def _shortened(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - HOLES_SHOWN} more" if len(texts) > HOLES_SHOWN else ""
    return ", ".join(texts[:HOLES_SHOWN]) + more


def _quality(view: ViewReport) -> list[str]:
    """Broken limits, and the columns that changed the most."""
    drifted = sorted((c for c in view.columns if c.drift_max is not None), key=lambda c: -(c.drift_max or 0))
    told = [f"{c.name} drifts by {c.drift_max:.2f} at {c.drift_at}" for c in drifted if (c.drift_max or 0) > 0.25]
    return [*view.quality[:COLUMNS_SHOWN], *told[:COLUMNS_SHOWN]]


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    return f"{seconds:.1f} s" if seconds < 100 else str(timedelta(seconds=round(seconds)))
