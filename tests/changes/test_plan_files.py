"""The workflow and the pre-commit hook call the command as it is, with no more rights than they need."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from actor_risk.changes.findings import CODES
from actor_risk.changes.report import MARKER
from actor_risk.cli._events import simulate
from actor_risk.cli._plan import plan
from tests.docs.pages import read_page

ROOT = Path(__file__).parents[2]
COMMANDS = {"plan": plan, "simulate": simulate}
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "feature-plan.yml").read_text())
"""YAML 1.1 reads its key `on` as True."""
(HOOK,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())


def steps(job: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = WORKFLOW["jobs"][job]["steps"]
    return found


def calls() -> list[list[str]]:
    """The commands of ours that the files run: their words after `actor-risk`."""
    runs = [step.get("run", "") for job in WORKFLOW["jobs"] for step in steps(job)]
    lines = [line for run in runs for line in run.splitlines() if "actor-risk " in line]
    found = [shlex.split(line, comments=True)[1:] for line in lines]
    return [*found, HOOK["entry"].split()[1:]]


@pytest.mark.parametrize("words", calls(), ids=" ".join)
def test_every_call_is_one_that_the_command_takes(words: list[str]) -> None:
    name, *arguments = words
    with COMMANDS[name].make_context(name, list(arguments)) as context:
        assert isinstance(context, click.Context)


def test_the_files_call_plan() -> None:
    assert [words[0] for words in calls()] == ["simulate", "plan", "plan"]
    assert HOOK["pass_filenames"] is False
    assert "pre-push" not in HOOK["stages"]  # nothing differs from HEAD then


def test_both_run_only_for_changes_of_the_feature_repository() -> None:
    assert WORKFLOW[True] == {"pull_request": {"paths": ["feature_repo/**"]}}
    assert re.search(HOOK["files"], "feature_repo/ad_views.py")
    assert not re.search(HOOK["files"], "docs/feature_repo.md")


def test_the_code_of_a_pull_request_runs_without_rights_and_what_may_write_runs_none_of_it() -> None:
    assert WORKFLOW["permissions"] == {}
    assert WORKFLOW["jobs"]["plan"]["permissions"] == {"contents": "read"}
    assert WORKFLOW["jobs"]["comment"]["permissions"] == {"pull-requests": "write"}
    (checkout,) = (step for step in steps("plan") if "checkout" in step.get("uses", ""))
    assert checkout["with"]["persist-credentials"] is False
    assert not [step for step in steps("comment") if "checkout" in step.get("uses", "")]
    assert "secrets." not in (ROOT / ".github" / "workflows" / "feature-plan.yml").read_text()


def test_no_text_of_a_pull_request_is_put_into_a_script() -> None:
    for job in WORKFLOW["jobs"]:
        assert not [step for step in steps(job) if "${{" in step.get("run", "")]


def test_a_refused_plan_is_told_all_the_same_and_a_fork_gets_a_summary() -> None:
    after = [step for step in steps("plan") if step.get("if")]
    assert [step["if"] for step in after] == ["${{ !cancelled() && hashFiles('plan.md') != '' }}"] * 2
    assert "$GITHUB_STEP_SUMMARY" in after[0]["run"]
    condition = WORKFLOW["jobs"]["comment"]["if"]
    assert "!cancelled()" in condition
    assert "needs.plan.outputs.report == 'success'" in condition
    assert WORKFLOW["jobs"]["plan"]["outputs"] == {"report": "${{ steps.report.outcome }}"}
    assert after[1]["id"] == "report"
    assert "head.repo.full_name == github.repository" in condition


def test_the_comment_is_found_again_by_what_it_begins_with() -> None:
    (write,) = (step for step in steps("comment") if "run" in step)
    assert f'startswith("{MARKER}")' in write["env"]["OURS"]
    assert {"PATCH", "POST"} <= set(re.findall(r"--method (\w+)", write["run"]))


GH = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in *--paginate*) printf "$IDS"; exit "$FAILS" ;; esac
"""


@pytest.mark.parametrize(
    ("ids", "fails", "written"),
    [
        ("", 0, "--silent --method POST all --field body=@plan.md"),
        ("12\\n", 0, "--silent --method PATCH one/12 --field body=@plan.md"),
        ("12\\n13\\n", 0, "--silent --method PATCH one/12 --field body=@plan.md"),
        ("", 1, None),
    ],
)
def test_one_comment_is_written_and_kept_up_to_date(ids: str, fails: int, written: str | None, tmp_path: Path) -> None:
    (tmp_path / "gh").write_text(GH)
    (tmp_path / "gh").chmod(0o755)
    (write,) = (step for step in steps("comment") if "run" in step)
    calls = tmp_path / "calls"
    given = {"COMMENTS": "all", "ONE": "one", "OURS": "", "IDS": ids, "FAILS": str(fails), "CALLS": str(calls)}
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", **given}
    done = subprocess.run(["bash", "-e", "-c", write["run"]], env=environment, check=False)
    assert done.returncode == fails
    found = [call.removeprefix("api ") for call in calls.read_text().splitlines()[1:]]
    assert found == ([] if written is None else [written])


def test_every_action_is_pinned_to_a_commit() -> None:
    text = (ROOT / ".github" / "workflows" / "feature-plan.yml").read_text()
    used = re.findall(r"uses: (.+)", text)
    assert len(used) == 4
    assert all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action) for action in used)


def test_the_page_shows_reports_as_they_are_made_and_every_call_of_plan_is_valid() -> None:
    page = read_page(ROOT / "docs" / "howto" / "change-a-feature.md")
    reports = [fence.body for fence in page.fences if fence.kind == "text"]
    assert [text.splitlines()[0] for text in reports] == ["Refused: 2 errors", "Nothing is refused"]
    for text in reports:
        assert text.splitlines()[1].startswith("Compared with ")
        assert "Changes" in text.splitlines()
        assert set(re.findall(r"\bAR\d{3}\b", text)) <= CODES.keys()
    assert "Findings" in reports[0].splitlines()
    assert {"Costs", "Values"} <= set(reports[1].splitlines())
    for command in page.commands:
        if command.startswith("actor-risk plan"):
            plan.make_context("plan", shlex.split(command)[2:]).close()
