"""Workers as processes of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from actor_risk.home import Home
from actor_risk.local import start_child
from actor_risk.local.processes import log_tail
from actor_risk.status_file import read_status
from actor_risk.streaming.child import OPTIONS_VARIABLE
from actor_risk.streaming.endings import end_of
from actor_risk.streaming.options import WorkerOptions
from actor_risk.streaming.report import WorkerReport
from actor_risk.streaming.workers import Ended


class WorkerProcess:
    """See `Worker`: a child, which ends with us whatever ends us."""

    def __init__(self, child: subprocess.Popen[bytes], report_file: Path, log_file: Path) -> None:
        self._child = child
        self._report_file = report_file
        self._log_file = log_file

    def ended(self) -> Ended | None:
        """See `Worker.ended`."""
        code = self._child.poll()
        if code is None:
            return None
        how = end_of(code)
        said = log_tail(self._log_file)
        if how != "died":
            return Ended(how, said)
        why = f"signal {-code}" if code < 0 else f"exit code {code}"
        return Ended(how, f"{why}; the end of {self._log_file}:\n{said}")

    def report(self) -> WorkerReport:
        """See `Worker.report`."""
        return read_status(self._report_file, WorkerReport)

    def stop(self) -> None:
        """See `Worker.stop`."""
        self._child.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """See `Worker.kill`."""
        self._child.kill()
        self._child.wait()


class ProcessPool:
    """See `WorkerPool`. Call it from the main thread: on Linux children end with the thread that started them."""

    def __init__(self, home: Home, folder: Path) -> None:
        """`folder` takes the workers' reports and logs: see `actor_risk.streaming.folder`."""
        self._home = home
        self._folder = folder

    def start(self, name: str, options: WorkerOptions) -> WorkerProcess:
        """See `WorkerPool.start`."""
        report_file, log_file = self._folder / f"{name}.json", self._folder / f"{name}.log"
        for old in (report_file, log_file):
            old.unlink(missing_ok=True)
        variables = {
            **os.environ,
            **self._home.environment(),
            OPTIONS_VARIABLE: msgspec.json.encode(options).decode(),
            "OMP_NUM_THREADS": "1",  # one worker, one core: more of them is how to use more
        }
        command = [sys.executable, "-m", "actor_risk.streaming.child", str(report_file)]
        return WorkerProcess(start_child(command, log_file, env=variables), report_file, log_file)

    def close(self) -> None:
        """See `WorkerPool.close`."""
