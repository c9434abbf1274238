"""Starting, recognising and stopping processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from actor_risk.local import DeadlineError, MissingToolError, free_port, start_child, stop_by_pid, wait_until
from actor_risk.local.processes import command_line, is_alive, is_listening, log_tail, stop_by_marker

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_waiting_ends_as_soon_as_the_condition_is_true() -> None:
    answers = iter([False, False, True])
    pauses: list[float] = []
    wait_until(lambda: next(answers), 10, "it is true", clock=lambda: 0.0, pause=pauses.append, interval_s=0.5)
    assert pauses == [0.5, 0.5]


def test_waiting_past_the_deadline_is_an_error_that_says_what_did_not_happen() -> None:
    ticks = iter(range(100))
    with pytest.raises(DeadlineError, match="waited 3 s until the cows come home"):
        wait_until(lambda: False, 3, "the cows come home", clock=lambda: float(next(ticks)), pause=lambda _: None)


def test_a_free_port_has_no_listener_until_somebody_listens() -> None:
    port = free_port()
    assert not is_listening(port)
    with socket.create_server(("127.0.0.1", port)):
        assert is_listening(port)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says which ports outgoing connections have")
def test_a_free_port_is_none_that_an_outgoing_connection_may_take() -> None:
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = {free_port() for _ in range(200)}
    assert not any(low <= port <= high for port in ports)
    assert len(ports) > 150


def test_a_childs_output_goes_to_its_log(tmp_path: Path) -> None:
    child = start_child([sys.executable, "-c", "print('hello')"], tmp_path / "logs" / "child.log")
    assert child.wait(timeout=20) == 0
    assert log_tail(tmp_path / "logs" / "child.log") == "hello"


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingToolError, match="no-such-program"):
        start_child(["no-such-program"], tmp_path / "child.log")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from actor_risk.local import start_child;"
        "print(start_child(['sleep', '61'], Path(sys.argv[1])).pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "log")], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_until(lambda: command_line(pid) == "sleep 61", 20, "the child runs its command")
        parent.kill()
    wait_until(lambda: not is_alive(pid), 20, "the child has ended")


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = start_child([sys.executable, "-c", STUBBORN], log)
    wait_until(lambda: log_tail(log) == "deaf", 20, "the child ignores SIGTERM")
    stop_by_pid(child.pid, "signal.SIG_IGN", grace_s=0.2)
    assert child.wait(timeout=20) == -signal.SIGKILL


def test_a_process_that_is_not_ours_is_never_signalled(sleeper: subprocess.Popen[bytes]) -> None:
    stop_by_pid(sleeper.pid, "valkey-server")
    assert sleeper.poll() is None


def test_a_process_that_has_ended_is_not_alive_even_before_it_is_waited_for(sleeper: subprocess.Popen[bytes]) -> None:
    assert is_alive(sleeper.pid)
    os.kill(sleeper.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(sleeper.pid), 20, "the process has ended")


@pytest.mark.parametrize("marker", ["", "/", "tmp", "/tmp"])
def test_processes_are_never_ended_by_a_marker_that_others_may_have_too(marker: str) -> None:
    with pytest.raises(ValueError, match="would end other processes"):
        stop_by_marker(marker)


def test_processes_are_ended_by_the_path_of_our_folder_in_their_command_line(tmp_path: Path) -> None:
    script = tmp_path / "wait.py"
    script.write_text("import time; time.sleep(600)")
    with subprocess.Popen([sys.executable, str(script)]) as child:
        wait_until(lambda: str(script) in command_line(child.pid), 10, "the child runs its script")
        stop_by_marker(str(tmp_path))
        assert child.wait(10) != 0
