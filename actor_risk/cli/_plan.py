"""`plan`: what a change to the feature repository does, before it is merged."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from actor_risk.cli._shared import home, leaving_nothing, own_sample
from actor_risk.home import Home

if TYPE_CHECKING:
    from actor_risk.changes.plan import Plan

COULD_NOT_PLAN = 2
STANDARD_OUTPUT = Path("-")

OUTPUT = click.Path(path_type=Path, dir_okay=False, writable=True, allow_dash=True)


class PlanFailedError(click.ClickException):
    """The plan could not be made: another exit code than that of a change that is refused."""

    exit_code = COULD_NOT_PLAN


@click.command()
@click.option(
    "--against",
    metavar="REF",
    help="Compare with this commit, branch or tag, or with a folder. Default: where this branch left main.",
)
@click.option("--markdown", "markdown_file", type=OUTPUT, metavar="F", help="Write it as a comment on a pull request.")
@click.option("--json", "json_file", type=OUTPUT, metavar="F", help="Write it as JSON, for programs.")
@click.option("--html", "html_file", type=OUTPUT, metavar="F", help="Write it as one HTML file, with pictures.")
@click.option(
    "--sample",
    type=click.Path(path_type=Path, exists=True),
    help="Data to look at values with: a folder like .local/data, or a Parquet file of events. Default: this home's.",
)
@click.option("--no-sample", is_flag=True, help="Look at definitions only; faster.")
@click.option("--strict", is_flag=True, help="Refuse warnings too.")
@leaving_nothing()
def plan(
    against: str | None,
    markdown_file: Path | None,
    json_file: Path | None,
    html_file: Path | None,
    sample: Path | None,
    no_sample: bool,
    strict: bool,
) -> None:
    """Say what a change to feature_repo/ does, before it is merged. Nothing live is touched, nothing is written.

    Compares the feature repository as it stands in the working tree with another version of it, by meaning and not by
    text: what changes, which services and models that breaks, what it costs, and, on a sample of data, what the values
    look like and whether a feature sees the future. Each finding has a code (docs/findings.md), says what to write
    instead, and can be waived with a reason by a tag `waive:<code>`.

    \b
    What does this branch change, with what is not committed yet?
      actor-risk plan
    What have I changed since the last commit? With pictures of the values:
      actor-risk plan --against HEAD --html plan.html
    The comment of a pull request, in CI:
      actor-risk plan --against HEAD^1 --markdown plan.md --json plan.json
    On other data, and as strict as can be:
      actor-risk plan --sample /data/last-week --strict
    For a program; F may be - for standard output, the report for people then goes to standard error:
      actor-risk plan --json - | jq '.plan.findings[].code'

    \b
    Exit codes:
      0  nothing is refused
      1  refused: there are errors; with --strict: or warnings
      2  used wrongly, or the plan could not be made
      128 and a signal's number: ended by it, as by Ctrl-C
    """
    files = {"markdown": markdown_file, "json": json_file, "html": html_file}
    _check(files, sample, no_sample)
    here = home()
    looked_at = None if no_sample else sample or own_sample(here)
    to_standard_output = STANDARD_OUTPUT in files.values()
    progress, shown = Console(stderr=True, highlight=False), Console(stderr=to_standard_output, highlight=False)
    progress.print(_said_of(looked_at, given=sample is not None), style="dim", markup=False)
    try:
        made = _made(here, against, looked_at, progress)
        _write(made, files, strict=strict)

        from actor_risk.changes import report

        report.terminal(made, shown, strict=strict)
    except Exception as error:  # whatever it is: to a job, a plan that failed must not look like a change refused
        raise PlanFailedError(str(error) or repr(error)) from error
    sys.exit(report.exit_code(made, strict=strict))


def _check(files: Mapping[str, Path | None], sample: Path | None, no_sample: bool) -> None:
    """Before the work: what could not be written at its end."""
    if sample is not None and no_sample:
        raise click.UsageError("--sample and --no-sample exclude each other")
    given = [file for file in files.values() if file is not None]
    if given.count(STANDARD_OUTPUT) > 1:
        raise click.UsageError("only one report can go to standard output")
    for file in given:
        if not file.parent.is_dir():
            raise click.UsageError(f"{file.parent} is no folder: make it first")


def _said_of(sample: Path | None, *, given: bool) -> str:
    if sample is None:
        return "no sample: definitions are compared, values are not looked at (name data with --sample)"
    name = _short(sample)
    return f"sample: {name}" if given else f"sample: {name}, this home's data (--sample names another)"


def _made(here: Home, against: str | None, sample: Path | None, progress: Console) -> Plan:
    from actor_risk.changes.checkout import old_version
    from actor_risk.changes.planning import PlanSettings, make_plan

    with (
        progress.status("plan: finding the old version …") as status,
        old_version(here.feature_repo, against) as old,
    ):
        both = "importing both versions" if sample is None else "importing both versions and evaluating the sample"
        status.update(f"plan: {both} …")
        return _with_short_name(make_plan(here, old, PlanSettings(sample=sample)), sample)


def _with_short_name(made: Plan, sample: Path | None) -> Plan:
    """The sample as it is called from here: a report on a pull request need not tell where it was made."""
    from msgspec.structs import replace

    if made.values is None or sample is None:
        return made
    return replace(made, values=replace(made.values, sample=_short(sample)))


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.absolute().relative_to(here) if path.absolute().is_relative_to(here) else path)


def _write(made: Plan, files: Mapping[str, Path | None], *, strict: bool) -> None:
    from actor_risk.changes import report

    forms: dict[str, Callable[[], bytes]] = {
        "markdown": lambda: report.markdown(made, strict=strict, pages=_pages(os.environ)).encode(),
        "json": lambda: report.json(made, strict=strict),
        "html": lambda: report.html(made, strict=strict).encode(),
    }
    for form, file in files.items():
        if file == STANDARD_OUTPUT:
            sys.stdout.buffer.write(forms[form]())
        elif file is not None:
            try:
                file.write_bytes(forms[form]())
            except OSError as error:
                raise PlanFailedError(f"{file} cannot be written: {error.strerror}") from error


def _pages(environ: Mapping[str, str]) -> str:
    """Where docs/ can be read, as GitHub tells its workflows; "" elsewhere."""
    address = [environ.get(name, "") for name in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_SHA")]
    if not all(address) or not Path("docs/findings.md").is_file():
        return ""
    server, repository, commit = address
    return f"{server}/{repository}/blob/{commit}/docs"
