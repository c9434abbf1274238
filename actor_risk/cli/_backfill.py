"""`backfill`: history into rows, so that it can be watched, stopped and resumed."""

from __future__ import annotations

from pathlib import Path
from threading import Event as ThreadEvent
from typing import TYPE_CHECKING, NoReturn

import click
from rich.console import Console

from actor_risk.cli._shared import Instant, console, home, now_ms, stop_on_signals

if TYPE_CHECKING:
    from actor_risk.backfilling.command import Backfill
    from materialize.backfill import Executor, Plan

BACKFILL_DAYS = 30
DAY_MS = 86_400_000
WORKERS_MAX = 4_096

QUALITY, BUSY, STOPPED = 3, 4, 130
"""Exit codes beside 0 (done), 1 (failed) and 2 (used wrongly)."""


@click.command()
@click.option("--view", "views", multiple=True, help="Only this view; may be given several times. All by default.")
@click.option("--start", type=Instant(), help=f"Batch views since then. Default: {BACKFILL_DAYS} days before the end.")
@click.option("--end", type=Instant(), default="now", show_default=True, help="History up to then, exclusive.")
@click.option("--step", default="1d", show_default=True, help="How much of history is a chunk: 6h, 1d, 7d.")
@click.option(
    "--workers",
    type=click.IntRange(1, WORKERS_MAX),
    help="Parts done at a time, one core each. 1 does all in this process. Default: this process for up to 2 million "
    "rows, else all cores.",
)
@click.option("--address", help="A Ray cluster: auto, HOST:PORT or ray://… Without it, a Ray of its own if need be.")
@click.option("--resume", is_flag=True, help="Do only what is missing: go on after a failure, a kill or a stop.")
@click.option("--dry-run", is_flag=True, help="Show the plan and write nothing.")
@click.option("--wait", is_flag=True, help="Wait for another backfill of the view instead of refusing.")
@click.option("--ignore-quality", is_flag=True, help="Write although the data breaks limits of the view's tags.")
@click.option("--report", type=click.Path(path_type=Path), help="Where the JSON report goes. Default: in the home.")
@click.option("--status-file", type=click.Path(path_type=Path), help="Kept up to date with what is done.")
def backfill(
    views: tuple[str, ...],
    start: int | None,
    end: int,
    step: str,
    workers: int | None,
    address: str | None,
    resume: bool,
    dry_run: bool,
    wait: bool,
    ignore_quality: bool,
    report: Path | None,
    status_file: Path | None,
) -> None:
    """Write online rows from history, chunk by chunk. Running it again changes nothing.

    A batch view gets each entity's newest row since --start. A stream view is filled as far back as its windows reach,
    up to a tile's edge before --end, whatever --start is; from there on the stream owns it. Feast's watermark of a
    view moves when all of its rows are written and acknowledged.

    \b
      actor-risk backfill                                        all views, up to now
      actor-risk backfill --dry-run                              what that would do, and how long it takes
      actor-risk backfill --view ip_ad_stats --end 2026-11-20T00:00:00Z
      actor-risk backfill --view ip_profile --start 2026-11-01T00:00:00Z --end 2026-11-22T00:00:00Z --step 6h
      actor-risk backfill --workers 8                            on eight cores of this machine
      actor-risk backfill --address auto --workers 64            on a Ray cluster

    Ctrl-C or SIGTERM stops it where it is, and it says how to go on: the same command with --resume. After kill -9,
    or a power failure, that is the way as well.

    Exit codes: 0 done, 1 failed, 2 used wrongly, 3 the data breaks limits (nothing was written), 4 another backfill
    has the view, 130 stopped.
    """
    from actor_risk.backfilling.command import Backfill, BackfillOptions
    from actor_risk.backfilling.display import show_plan

    here, shown = home(), console()
    since = end - BACKFILL_DAYS * DAY_MS if start is None else start
    options = BackfillOptions(views, since, min(end, now_ms()), step, workers, address, resume, ignore_quality, wait)
    command = Backfill(here, options)
    try:
        plans = command.plans()
        if dry_run:
            show_plan(shown, plans, None)
            return
        executor = command.executor(plans)
        show_plan(shown, plans, executor.name)
        stop = stop_on_signals()  # after Ray's start, which sets handlers of its own
        _run(command, executor, plans, stop, shown, report, status_file)
    finally:
        command.close()


def _run(
    command: Backfill,
    executor: Executor,
    plans: list[Plan],
    stop: ThreadEvent,
    shown: Console,
    report: Path | None,
    status_file: Path | None,
) -> None:
    from actor_risk.backfill_process import write_status
    from actor_risk.backfilling.command import keep_report
    from actor_risk.backfilling.display import one_bar, show_report
    from materialize.backfill import JobStatus, QualityError, StoppedError, ViewBusyError

    names = [plan.view for plan in plans]

    def alive() -> None:
        if stop.is_set():
            raise StoppedError("stopped")

    try:
        with one_bar(shown, plans) as tell:

            def told(status: JobStatus) -> None:
                done = names.index(status.view) + (status.phase == "done")
                write_status(status_file, status.view, done, len(names))
                tell(status)

            command.run(executor, alive, told)
    except (StoppedError, KeyboardInterrupt) as error:
        _end(f"stopped; what is done is kept. To go on:\n  {command.options.to_resume()}", STOPPED, error)
    except QualityError as error:
        _end(str(error), QUALITY, error)
    except ViewBusyError as error:
        _end(str(error), BUSY, error)
    except Exception as error:
        _say_where(error, command.options.to_resume())
        raise
    finally:
        done = command.report()
        show_report(shown, done)
        shown.print(f"[dim]report: {keep_report(home(), done, report)}[/]", soft_wrap=True)


def _say_where(error: Exception, resume: str) -> None:
    """The notes of an error reach nobody who sees its message alone."""
    where = "; ".join(getattr(error, "__notes__", []))
    click.echo(f"failed {where or 'before anything was read'}; when the cause is mended:\n  {resume}", err=True)


def _end(message: str, code: int, why: BaseException) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    raise click.exceptions.Exit(code) from why
