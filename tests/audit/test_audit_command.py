"""`actor-risk audit` where there is nothing to audit: a message that says what to do, and the exit code for that."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from actor_risk.audit.report import EXIT_CODES
from actor_risk.cli import main


def invoke(home: Path, *options: str) -> Result:
    environ = {"ACTOR_RISK_HOME": str(home), "ACTOR_RISK_DECISIONS": "", "ACTOR_RISK_FEATURE_REPO": "feature_repo"}
    return CliRunner().invoke(main, ["audit", *options], env=environ)


def test_without_a_log_it_says_where_it_looked_and_which_variable_to_set(tmp_path: Path) -> None:
    found = invoke(tmp_path, "--from", "2026-11-24T00:00:00Z")
    assert found.exit_code == EXIT_CODES["nothing_compared"] == 2
    told = " ".join(found.output.split())
    assert "no decision log" in told
    assert "ACTOR_RISK_DECISIONS" in told


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--from", "yesterday"),
        ("--from", "2026-11-24T00:00:00"),
        ("--from", "2026-11-25T00:00:00Z", "--to", "2026-11-24T00:00:00Z"),
        ("--from", "2026-11-24T00:00:00Z", "--max-mismatch-rate", "2"),
    ],
)
def test_what_cannot_be_run_ends_with_2_and_never_looks_like_a_difference(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    (tmp_path / "decisions").mkdir()
    assert invoke(tmp_path, *options).exit_code == 2


def test_help_teaches_with_examples_and_says_what_the_exit_codes_mean(tmp_path: Path) -> None:
    told = invoke(tmp_path, "--help").output
    assert "actor-risk audit --from 2026-11-24T00:00:00Z --to" in told
    assert all(f"{code}  " in told for code in (0, 1, 2))
