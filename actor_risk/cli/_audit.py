"""`audit`: what was served, computed again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click
import msgspec
from rich.progress import Progress

from actor_risk.cli._shared import Instant, console, home, progress_bar
from materialize.personal import reason_of

KIB = 1024
COULD_NOT_RUN = 2
"""As for an audit that compared nothing; said here, so that `--help` need not import Feast."""


class AuditFailedError(click.ClickException):
    """The audit could not be made: another exit code than that of differences."""

    exit_code = COULD_NOT_RUN


@click.command()
@click.option("--from", "from_ms", type=Instant(), required=True, help="Decisions as of then and later.")
@click.option("--to", "to_ms", type=Instant(), default="now", show_default=True, help="Decisions as of before then.")
@click.option("--service", "services", multiple=True, help="Only this feature service's decisions; repeatable.")
@click.option(
    "--history-until",
    type=Instant(),
    help="Up to when history is complete; later decisions are not compared. Default: each source's newest event.",
)
@click.option(
    "--lag-ms",
    type=click.IntRange(0),
    default=2_000,
    show_default=True,
    help="How long an event may take from the log into a row: a difference that vanishes without such events is late.",
)
@click.option("--no-late", is_flag=True, help="Call nothing late: for history whose created time is not the log's.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=1e-9,
    show_default=True,
    help="For sums and what is made of them: relative, absolute below 1. Counts and extremes are compared exactly.",
)
@click.option(
    "--max-mismatch-rate",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of any one feature's comparisons that may differ.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the report as JSON.")
@click.option("--html", "html_file", type=click.Path(path_type=Path, dir_okay=False), help="Write it as one HTML file.")
@click.option("--all", "every_feature", is_flag=True, help="List every feature, not only those with something to tell.")
@click.option("--log", "log_folder", type=click.Path(path_type=Path), help="The decision log. Default: this home's.")
def audit(
    from_ms: int,
    to_ms: int,
    services: tuple[str, ...],
    history_until: int | None,
    lag_ms: int,
    no_late: bool,
    tolerance: float,
    max_mismatch_rate: float,
    json_file: Path | None,
    html_file: Path | None,
    every_feature: bool,
    log_folder: Path | None,
) -> None:
    """Compute served features again from history, and compare.

    The server logs decisions with every feature value that it read. This command takes those of a time span, asks the
    offline store (Feast's get_historical_features) for the same features of the same entities as of the same times, and
    counts for each feature: equal, mismatched, only online, only offline, and late.

    \b
    Last night, in CI, with a picture of each feature that differs:
      actor-risk audit --from 2026-11-24T00:00:00Z --to 2026-11-25T00:00:00Z --html audit.html --json audit.json
    History is complete up to midnight, though no event came in the last minutes:
      actor-risk audit --from 2026-11-24T00:00:00Z --history-until 2026-11-25T00:00:00Z
    One service, allowing one value in a thousand:
      actor-risk audit --from 2026-11-24T00:00:00Z --service ad_click_risk --max-mismatch-rate 0.001

    \b
    Exit codes:
      0  every feature differs in at most --max-mismatch-rate of its comparisons
      1  some feature differs in more
      2  nothing was compared, or the audit could not run
    """
    from actor_risk.audit import AuditSettings
    from actor_risk.audit import audit as run_audit
    from actor_risk.audit.html import html_report
    from actor_risk.audit.persons import without_persons
    from actor_risk.audit.terminal import show
    from actor_risk.personal import personal_in
    from materialize.definitions import open_feature_store

    here, shown = home(), console()
    settings = AuditSettings(
        log=log_folder or here.decisions,
        from_ms=from_ms,
        to_ms=to_ms,
        services=services,
        tolerance=tolerance,
        mismatch_rate_max=max_mismatch_rate,
        lag_ms=None if no_late else lag_ms,
        history_until_ms=history_until,
    )
    try:
        with progress_bar(shown) as progress:
            found = run_audit(open_feature_store(here.feature_repo, here.registry), settings, _told_to(progress))
            report = without_persons(found, personal_in(here.registry))
        if json_file is not None:
            json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
        if html_file is not None:
            html_file.write_text(html_report(report), encoding="utf-8")
    except Exception as error:  # whatever it is: to a job, a failed audit must not look like a difference
        raise AuditFailedError(reason_of(error)) from error
    show(shown, report, every_feature=every_feature)
    sys.exit(report.exit_code)


def _told_to(progress: Progress) -> Callable[[int, int], None]:
    """Shows how much of the log has been read, in KiB."""
    task = progress.add_task("audit (KiB of the log)", total=None)

    def tell(done: int, total: int) -> None:
        progress.update(task, completed=done // KIB, total=max(total // KIB, 1))

    return tell
