"""`actor-risk apply` from the command line: what it shows, what it refuses, who did what, and back again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from actor_risk.cli._main import main
from tests.changes.repos import edit, small_repo

Run = Callable[..., Result]
FILE = "definitions.py"


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return small_repo(tmp_path)


@pytest.fixture
def run(tmp_path: Path, repo: Path) -> Run:
    """Run the command in a home of its own; `fails`: the exit code that it is to end with."""
    environment = {
        "ACTOR_RISK_HOME": str(tmp_path / "home"),
        "ACTOR_RISK_FEATURE_REPO": str(repo),
        "ACTOR_RISK_DATA": None,
        "ACTOR_RISK_MODELS": None,
        "COLUMNS": "200",
    }

    def command(*words: str, fails: int = 0) -> Result:
        done = CliRunner(env=environment).invoke(main, words)
        assert done.exit_code == fails, done.output
        return done

    return command


def test_apply_shows_what_changes_and_keeps_a_history_and_goes_back(run: Run, repo: Path) -> None:
    assert "nothing was applied yet" in run("apply", "--history").output
    assert "3 views and the feature services risk" in run("apply", "--as", "ann").output

    edit(repo, FILE, "timedelta(days=30)", "timedelta(days=40)")
    dry = run("apply", "--dry-run").output
    assert "changed  view ip_table" in dry
    assert "nothing was changed" in dry
    assert run("apply", "--as", "bob").output.count("apply 2 by bob") == 1
    assert "nothing has changed" in run("apply").output

    assert "back to apply 1" in run("apply", "--rollback", "--as", "eve").output
    table = run("apply", "--history").output
    assert table.index("eve") < table.index("bob") < table.index("ann")
    assert "back to 1: changed view ip_table" in table


def test_what_the_plan_refuses_is_shown_and_not_applied(run: Run, repo: Path, tmp_path: Path) -> None:
    run("apply")
    before = (tmp_path / "home" / "registry.db").read_bytes()
    edit(repo, FILE, 'function="sum"', 'function="no_such_function"')
    refused = run("apply", fails=1).output
    assert "AR006" in refused
    assert "not applied: " in refused
    assert (tmp_path / "home" / "registry.db").read_bytes() == before


def test_what_is_no_number_of_an_apply_is_refused(run: Run) -> None:
    assert "see --history" in run("apply", "--rollback", "yesterday", fails=2).output
