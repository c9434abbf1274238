"""`actor-risk stream` as a person runs it: workers that are killed come back, and a second command can watch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from actor_risk.cli import main
from actor_risk.cli._stream import StartAt
from actor_risk.home import Home
from actor_risk.local import start_child, wait_until
from actor_risk.local.processes import is_alive, log_tail
from actor_risk.status_file import read_status
from actor_risk.streaming.report import StreamStatus
from materialize.stream.log import Start
from tests.streaming.conftest import publish_clicks

TIMEOUT_S = 90.0


@contextmanager
def stream(home: Home, status_file: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A stream command, killed at the end with its workers."""
    command = [sys.executable, "-m", "actor_risk.cli", "stream", "--status-file", str(status_file), *arguments]
    child = start_child(command, status_file.with_suffix(".log"), env={**os.environ, **home.environment()})
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def test_workers_share_the_partitions_and_a_killed_one_comes_back(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "status.json"

    def status() -> StreamStatus:
        return read_status(path, StreamStatus)

    def sharing(pids: set[int]) -> bool:
        """Two workers at work, neither with one of these process ids, share the partitions."""
        workers = status().workers.values()
        return len(workers) == 2 and all(w.partitions and w.pid not in pids for w in workers)

    with stream(home, path, "--workers", "2", "--group", "shared", "--from", "latest") as command:
        wait_until(lambda: sharing(set()), TIMEOUT_S, "both own partitions")
        publish_clicks(home, "shared", 200)
        wait_until(lambda: status().records == 200, TIMEOUT_S, "both work")
        owned = [place for worker in status().workers.values() for place in worker.partitions]
        assert len(owned) == len(set(owned)) == 8
        first, second = (status().workers[name].pid for name in ("worker-0", "worker-1"))
        os.kill(first, signal.SIGKILL)
        publish_clicks(home, "more", 100)
        wait_until(lambda: status().records == 300, TIMEOUT_S, "the other one does its work")
        wait_until(lambda: sharing({first}), TIMEOUT_S, "it is started again")
        assert status().restarts == {"worker-0": 1, "worker-1": 0}

        watched = CliRunner().invoke(
            main, ["stream", "--attach", "--top"], env={**home.environment(), "COLUMNS": "160"}
        )
        assert "group shared  2 workers  1 restarts" in watched.output

        third = status().workers["worker-0"].pid
        command.send_signal(signal.SIGTERM)
        assert command.wait(TIMEOUT_S) == 0, log_tail(path.with_suffix(".log"))
        assert not any(is_alive(pid) for pid in (second, third))
    assert "stopped: 300 events" in path.with_suffix(".log").read_text()
    assert json.loads(path.read_text())["records"] == 300


@pytest.mark.parametrize(
    ("given", "start"),
    [("latest", "latest"), ("earliest", "earliest"), ("1970-01-02T00:00:00Z", 86_340_000), ("1970-01-01T00:00:00Z", 0)],
)
def test_a_group_begins_a_minute_before_the_time_given_as_events_may_be_so_far_ahead_of_the_log(
    given: str, start: Start
) -> None:
    assert StartAt().convert(given, None, None) == start


def test_watching_without_a_running_command_says_what_to_do(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["stream", "--attach"], env={"ACTOR_RISK_HOME": str(tmp_path)})
    assert done.exit_code == 1
    assert "actor-risk stream" in done.output


@pytest.mark.parametrize("spec", ["nobody=json", "ad_events=yaml"])
def test_a_wrong_format_is_told_before_anything_starts(tmp_path: Path, spec: str) -> None:
    done = CliRunner().invoke(main, ["stream", "--format", spec], env={"ACTOR_RISK_HOME": str(tmp_path)})
    assert done.exit_code == 1
    assert spec in done.output
