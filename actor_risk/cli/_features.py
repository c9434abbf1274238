"""`apply`: definitions into the registry, with a plan before it and a way back."""

from __future__ import annotations

import getpass
import os
import platform
import textwrap
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from actor_risk.changes.findings import CODES
from actor_risk.cli._shared import console, home, leaving_nothing, now_ms, own_sample
from actor_risk.home import Home
from materialize.quick_feast import import_feast_quickly

if TYPE_CHECKING:
    from actor_risk.changes.applying import Done, Planner, Prepared
    from actor_risk.changes.findings import Finding
    from actor_risk.changes.plan import Plan

THE_ONE_BEFORE = "the one before"
CHANGES_MAX = 20
"""So many changes are shown; `plan` is for looking at a change at length."""


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user that has no name
        user = str(os.getuid())
    return f"{user}@{platform.node()}"


@click.command()
@click.option(
    "--rollback",
    metavar="[N]",
    is_flag=False,
    flag_value=THE_ONE_BEFORE,
    help="Apply again what was applied before this, or by apply N of the history.",
)
@click.option("--history", "shows_history", is_flag=True, help="List what was applied, by whom and when.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option(
    "--sample",
    type=click.Path(path_type=Path, exists=True),
    help="Data to look at values with, as `plan` does. Default: this home's.",
)
@click.option("--no-sample", is_flag=True, help="Look at definitions only; faster.")
@click.option("--as", "by", default=_who, metavar="NAME", help="Who applies, for the history. Default: you@this-host.")
@leaving_nothing()
def apply(
    rollback: str | None, shows_history: bool, dry_run: bool, sample: Path | None, no_sample: bool, by: str
) -> None:
    """Put the definitions of feature_repo/ into the registry, unless the plan refuses the change.

    The first apply into an empty registry has nothing to break and is done at once. Every other one is planned first:
    what changes is shown, and done if nothing is refused. Running servers follow within seconds.

    \b
      actor-risk apply --dry-run      what would change
      actor-risk apply                change it
      actor-risk apply --history      who changed what, and when
      actor-risk apply --rollback     what was there before, again
    """
    if shows_history:
        _show_history(home(), console())
        return
    import_feast_quickly()
    from actor_risk.changes.applying import Asked, apply_prepared, prepare
    from actor_risk.changes.describing import check_arguments

    check_arguments()  # what the quick import leaves out, of what people write
    here, shown = home(), console()
    asked = Asked(by, now_ms(), rollback is not None, _number(rollback))
    prepared = prepare(here, asked, _planner(here, None if no_sample else sample or own_sample(here)))
    _show_plan(prepared, shown)
    if dry_run:
        shown.print("nothing was changed: this was a dry run")
        return
    _show_done(here, prepared, apply_prepared(here, asked, prepared), shown)


def _planner(here: Home, sample: Path | None) -> Planner:
    def planned(old: Path | None, new: Path) -> Plan:
        from actor_risk.changes.checkout import Against
        from actor_risk.changes.planning import PlanSettings, make_plan

        applied = Against("what was applied last", old)
        against = applied if old is not None else Against("what the registry has", None, here.registry)
        return make_plan(here, against, PlanSettings(sample=sample, repo=new))

    return planned


def _number(rollback: str | None) -> int | None:
    if rollback in (None, THE_ONE_BEFORE):
        return None
    if not rollback.isdigit():
        raise click.BadParameter(f"{rollback!r} is no number of an apply: see --history", param_hint="--rollback")
    return int(rollback)


def _show_plan(prepared: Prepared, shown: Console) -> None:
    if prepared.restores is not None:
        when = _when(prepared.restores.at_ms)
        shown.print(f"back to apply {prepared.restores.number}, of {when} by {escape(prepared.restores.by)}")
    plan = prepared.plan
    if plan is None:
        return
    for change in plan.changes[:CHANGES_MAX]:
        was = f" (was {change.was})" if change.was else ""
        details = f": {'; '.join(change.details)}" if change.details else ""
        text = f"  {change.what:<8} {change.kind} [bold]{escape(change.name)}[/bold]{escape(was + details)}"
        shown.print(text, soft_wrap=True)
    if len(plan.changes) > CHANGES_MAX:
        shown.print(f"  and {len(plan.changes) - CHANGES_MAX} more changes: `actor-risk plan` shows all")
    for finding in plan.refusals:
        _show_refusal(finding, shown)
    if plan.refusals and prepared.restores is not None:
        shown.print("  the plan refuses this change; going back to what served before is done nevertheless")
    warnings = Counter(finding.code for finding in plan.findings if finding.severity == "warning")
    if warnings:
        told = ", ".join(f"{count} × {code} {CODES[code].title}" for code, count in sorted(warnings.items()))
        shown.print(f"  [yellow]warnings[/yellow]: {escape(told)}: `actor-risk plan` shows them", soft_wrap=True)


def _show_refusal(finding: Finding, shown: Console) -> None:
    place = f" ({finding.place})" if finding.place else ""
    text = f"{escape(finding.subject)}: {escape(finding.message + place)}"
    shown.print(f"  [red]{finding.code}[/red] {text}", soft_wrap=True)
    if finding.instead:
        shown.print(escape(textwrap.indent(f"instead: {finding.instead}", " " * 8)), soft_wrap=True)


def _show_done(here: Home, prepared: Prepared, done: Done, shown: Console) -> None:
    from actor_risk.changes.costing import to_fill

    services = ", ".join(done.applied.services) or "none"
    if done.entry is None:
        shown.print(f"nothing has changed: {here.registry} has these definitions")
        return
    told = f"{done.applied.views} views and the feature services {escape(services)} are in {escape(str(here.registry))}"
    shown.print(told, soft_wrap=True)
    entry = done.entry
    shown.print(f"apply {entry.number} by {escape(entry.by)}, definitions {entry.registered.fingerprint}")
    plan = prepared.plan
    views = () if plan is None else to_fill(plan.old, plan.new)
    if plan is not None and views:
        _show_rows_to_fill(plan, views, shown)
        if prepared.restores is not None:
            shown.print("rows that were not written over since are read again at once, without what came meanwhile")


def _show_rows_to_fill(plan: Plan, views: Sequence[str], shown: Console) -> None:
    told = ", ".join(views)
    shown.print(
        f"rows to fill again, since what they hold is defined otherwise now, or new: {escape(told)}", soft_wrap=True
    )
    for command in plan.costs.backfill if plan.costs is not None else ():
        shown.print(f"  {escape(command)}", soft_wrap=True)
    if any(view.kind == "stream" for view in plan.new.views if view.name in views):
        shown.print("then start the stream workers anew: `actor-risk stream` (those of the old definitions stop)")


def _show_history(here: Home, shown: Console) -> None:
    from actor_risk.changes.apply_log import ApplyLog
    from actor_risk.changes.registered import in_a_line

    table = Table("apply", "at (UTC)", "by", "what", "definitions", "commit", box=None)
    for entry in reversed(ApplyLog(here.root).applies()):
        what = in_a_line(entry.what) or "the same definitions"
        if entry.restores is not None:
            what = f"back to {entry.restores}: {what}"
        commit = entry.commit[:12] + ("+" if entry.commit.endswith("+") else "")
        row = (str(entry.number), _when(entry.at_ms), entry.by, what, entry.registered.fingerprint, commit)
        table.add_row(*map(escape, row))
    shown.print(table if table.row_count else f"nothing was applied yet to {here.registry}")


def _when(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
