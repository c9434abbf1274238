"""`test`: unit tests of features."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from actor_risk.cli._shared import console, home, leaving_nothing, progress_bar
from materialize.quick_feast import import_feast_quickly

FOLDER = Path("feature_tests")
COULD_NOT_RUN = 2


class TestsNotRunError(click.ClickException):
    """The tests could not be run: another exit code than that of a test that fails."""

    exit_code = COULD_NOT_RUN


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("-k", "word", metavar="NAME", help="Only tests with this in their name, view or file.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the result as JSON.")
@click.option("--new", "new", metavar="VIEW", help="Write a first file of tests for a view or service, to the output.")
@leaving_nothing()
def test(paths: tuple[Path, ...], word: str | None, json_file: Path | None, new: str | None) -> None:
    """Test features: events in, expected values out, as training computes them and as serving does.

    PATHS are files of tests or folders of such, by default feature_tests/. A test names a view (or a feature service),
    some events, and what it expects as of some times:

    \b
      # feature_tests/ip_ad_stats.yaml
      view: ip_ad_stats
      cases:
        - name: a click counts from the tail of the window on
          events:
            - {time: -5m, event_type: click}
            - {time: -5m-1ms, event_type: click}
            - {time: +1s, event_type: click}
          expect:
            0: {ip_clicks_5m: 1, ip_clicks_1h: 2, ip_conversions_24h: 0}
            +1s: {ip_clicks_5m: 2}

    Times are relative to `now` (2026-01-01 12:00:00, or what the case says), or absolute, in UTC. Columns that a test
    does not name are null, or the same for all events, so all are of one actor. A value is a number, a word, null, or
    ~ 1.5 ± 0.01. Batch views get rows under `profiles:`, on-demand views their values under `request:`.

    \b
    Every value is computed
      as training does   history in Parquet, get_historical_features
      as serving does    events folded into rows one by one, all at once, in another order and twice,
                         sent with the request, and split between a backfill and the stream
    and all must be the expected one. Neither Redis nor the live registry is needed.

    \b
    Exit codes:
      0  every test passed
      1  a test failed
      2  the tests could not be run: a mistake in a file of tests, in the repository, or in how this was called
    """
    import_feast_quickly()
    from actor_risk.feature_tests.command import bound_cases, chosen_cases, repo_under_test
    from actor_risk.feature_tests.run import run_cases
    from actor_risk.feature_tests.starting import first_file
    from actor_risk.feature_tests.terminal import show

    here, shown = home(), console()
    try:
        cases = [] if new is not None else chosen_cases(paths or (FOLDER,), word)
        with repo_under_test(here.feature_repo, {"ACTOR_RISK_DATA": str(here.data)}) as (repo, work):
            if new is not None:
                click.echo(first_file(repo, new, work), nl=False)
                return
            bound = bound_cases(cases, repo)
            with progress_bar(shown) as progress:
                task = progress.add_task("tests", total=len(bound))
                report = run_cases(repo, bound, work, lambda _: progress.advance(task))
        if json_file is not None:
            json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    except Exception as error:  # whatever it is: to a job, tests that did not run must not look like one that failed
        raise TestsNotRunError(str(error) or repr(error)) from error
    show(shown, report)
    sys.exit(1 if report.failed else 0)
