"""`actor-risk plan` as it is called: what it takes, what it refuses before any work."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner

from actor_risk.cli._plan import plan
from actor_risk.cli._shared import leaving_nothing


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whoever_ends_it_has_what_it_began_ended_and_no_plan_that_looks_refused(number: signal.Signals) -> None:
    before = signal.signal(number, signal.default_int_handler)  # whatever these tests were started by may ignore it
    left = []

    @leaving_nothing()
    def command() -> None:
        try:
            os.kill(os.getpid(), number)
            signal.sigtimedwait([], 5)
        finally:
            left.append("cleaned")

    try:
        with pytest.raises(SystemExit) as ended:
            command()
        assert signal.getsignal(number) == signal.default_int_handler
    finally:
        signal.signal(number, before)
    assert ended.value.code == 128 + number
    assert left == ["cleaned"]


def test_what_is_not_to_hear_of_a_closed_terminal_does_not() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with leaving_nothing():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
