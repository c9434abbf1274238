"""`actor-risk stream` as a child process, so that it runs beside other work."""

from __future__ import annotations

import os
import sys

from actor_risk.errors import ActorRiskError
from actor_risk.home import Home
from actor_risk.local import start_child, wait_until
from actor_risk.local.processes import log_tail
from actor_risk.serving_process import stop_child
from actor_risk.status_file import read_status
from actor_risk.streaming.report import StreamStatus

READY_TIMEOUT_S = 60.0


class StreamProcess:
    """A running stream command; it ends with this process, or when it is stopped."""

    def __init__(self, home: Home, group: str, start: str) -> None:
        self._log = home.logs / "stream.log"
        self._status = home.root / "stream.json"
        self._log.unlink(missing_ok=True)
        self._status.unlink(missing_ok=True)
        command = [sys.executable, "-m", "actor_risk.cli", "stream", "--group", group, "--from", start]
        command += ["--status-file", str(self._status)]
        self._child = start_child(command, self._log, env={**os.environ, **home.environment()})

    def wait_until_ready(self) -> None:
        """Return when its workers own partitions. Raises ActorRiskError with the end of its log."""
        try:
            wait_until(
                lambda: self.status().is_ready or self._has_ended(), READY_TIMEOUT_S, "the stream worker is ready"
            )
        except Exception as error:
            raise ActorRiskError(f"{error}; the end of {self._log}:\n{log_tail(self._log)}") from error
        if self._has_ended():
            raise ActorRiskError(f"the stream worker ended; the end of {self._log}:\n{log_tail(self._log)}")

    def wait_until_done(self, records: int, timeout_s: float) -> None:
        """Return when it has taken `records` records through the whole protocol. Raises DeadlineError."""
        wait_until(lambda: self.status().records >= records, timeout_s, f"the worker has taken {records:,} events")

    def status(self) -> StreamStatus:
        """What it last said of itself."""
        return read_status(self._status, StreamStatus)

    def stop(self) -> None:
        """Let it finish its batch and stop."""
        stop_child(self._child, 15.0)

    def _has_ended(self) -> bool:
        return self._child.poll() is not None
