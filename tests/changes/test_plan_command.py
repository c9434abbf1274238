"""`actor-risk plan` as it is called: what it takes, what it refuses before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from actor_risk.cli._plan import plan


def call(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(plan, list(words))
    return result.exit_code, result.output


def test_help_teaches_with_examples_and_exit_codes() -> None:
    code, told = call("--help")
    assert code == 0
    for text in ("actor-risk plan --against HEAD --html plan.html", "Exit codes:", "waive:<code>", "--strict"):
        assert text in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--json", "-", "--markdown", "-"), "only one report can go to standard output"),
        (("--html", "no/such/folder/plan.html"), "no/such/folder is no folder"),
        (("--sample", "no/such/sample"), "does not exist"),
        (("--sample", ".", "--no-sample"), "exclude each other"),
        (("--aginst", "main"), "No such option"),
    ],
)
def test_what_is_used_wrongly_is_said_before_any_work(
    words: tuple[str, ...], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = call(*words)
    assert code == 2
    assert told in output
