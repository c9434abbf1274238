"""Processes on this machine: start one with a log file, find out whose it is, wait for it, stop it by its id."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from actor_risk.local.errors import DeadlineError, LocalRuntimeError, MissingToolError

_GUARD = Path(__file__).with_name("_guard.py")
_LOG_TAIL_CHARS = 2_000
_PORTS = range(20_000, 32_600)
"""Above those that Ray's workers take by default, and a hundred and more below those of outgoing connections: Linux'
begin at 32,768."""
_CHANCE = random.SystemRandom()
"""Not the same in two processes, whatever was seeded."""


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on now. Somebody may take it before you do: be ready to retry.

    It is none that a system gives to outgoing connections, of which a busy machine opens thousands in the meantime.
    """
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", _CHANCE.choice(_PORTS)))
            return int(probe.getsockname()[1])


def is_listening(port: int) -> bool:
    """Whether somebody listens on this TCP port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(
    condition: Callable[[], bool],
    timeout_s: float,
    what: str,
    *,
    interval_s: float = 0.02,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Return as soon as `condition()` is true; it is asked every `interval_s`, and once more at the deadline.

    `what` completes the sentence "waited … s until …". Raises DeadlineError.
    """
    deadline = clock() + timeout_s
    while not condition():
        if clock() >= deadline:
            raise DeadlineError(f"waited {timeout_s:g} s until {what}, and it did not happen")
        pause(interval_s)


def start_child(
    command: Sequence[str],
    log_path: Path,
    *,
    die_with_parent: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` with its output appended to `log_path`, away from the terminal's Ctrl-C.

    With `die_with_parent` the kernel ends the child when the *thread* that started it ends (Linux only): start
    long-lived children from a long-lived thread. Raises MissingToolError when the program does not exist.
    """
    if shutil.which(command[0]) is None:
        raise MissingToolError(f"cannot start {command[0]!r}: install it or put it on PATH")
    guard = [sys.executable, "-I", "-S", str(_GUARD), str(os.getpid())] if die_with_parent else []
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log:
        return subprocess.Popen(
            [*guard, *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
        )


def command_line(pid: int) -> str:
    """The command line of process `pid`, its words separated by spaces; empty if it has ended or cannot be seen."""
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:  # gone, or gone while being read
            return ""
    shown = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip()


def is_ours(pid: int, marker: str) -> bool:
    """Whether process `pid` runs and has `marker`, such as the path of its config file, in its command line."""
    return marker in command_line(pid)


def is_alive(pid: int) -> bool:
    """Whether a process with this id exists and has not ended (a zombie has)."""
    if sys.platform == "linux":
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # gone, or gone while being read
            return False
        return state not in "ZX"
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(shown.stdout.strip()) and not shown.stdout.strip().startswith("Z")


def stop_by_pid(pid: int, marker: str, *, grace_s: float = 10.0) -> None:
    """End process `pid` if it is ours: SIGTERM, then SIGKILL after `grace_s`.

    A process without `marker` in its command line is somebody else's and is left alone. Raises LocalRuntimeError
    if it outlives SIGKILL.
    """
    for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 10.0)):
        if not is_ours(pid, marker):
            return
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        with suppress(DeadlineError):
            wait_until(lambda: not is_alive(pid), patience_s, f"process {pid} ends")
            return
    raise LocalRuntimeError(f"process {pid} did not end after SIGKILL: end it by hand and start again")


def stop_by_marker(marker: str) -> None:
    """End every process with `marker`, the absolute path of a folder that is ours alone, in its command line.

    Raises ValueError for anything that could be in other command lines too.
    """
    if not Path(marker).is_absolute() or len(Path(marker).parts) < 3:
        raise ValueError(f"{marker!r} is no path of a folder of ours: it would end other processes")
    for pid in _pids():
        if pid != os.getpid() and is_ours(pid, marker):
            stop_by_pid(pid, marker, grace_s=2.0)


def _pids() -> list[int]:
    if sys.platform == "linux":
        return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    shown = subprocess.run(["ps", "-axo", "pid="], capture_output=True, text=True, check=False)
    return [int(line) for line in shown.stdout.split()]


def log_tail(log_path: Path) -> str:
    """The last lines of a child's log, for an error message."""
    if not log_path.exists():
        return "(no log)"
    return log_path.read_text(errors="replace")[-_LOG_TAIL_CHARS:].strip() or "(empty log)"
