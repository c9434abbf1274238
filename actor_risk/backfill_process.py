"""A backfill as a child process, so that it runs beside other work."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from actor_risk.errors import ActorRiskError
from actor_risk.home import Home
from actor_risk.local import start_child
from actor_risk.local.processes import log_tail
from actor_risk.serving_process import stop_child
from actor_risk.status_file import read_status, replace_status


class BackfillStatus(msgspec.Struct, frozen=True):
    """What a backfill says of itself: the view in hand, and how many are done of how many."""

    view: str = ""
    done: int = 0
    total: int = 0


class BackfillProcess:
    """A running backfill of all views; it ends with this process, or when it is stopped."""

    def __init__(self, home: Home, end_ms: int) -> None:
        self._log = home.logs / "backfill.log"
        self._status = home.root / "backfill.json"
        self._log.unlink(missing_ok=True)
        self._status.unlink(missing_ok=True)
        end = datetime.fromtimestamp(end_ms / 1000, UTC).isoformat()
        command = [sys.executable, "-m", "actor_risk.cli", "backfill", "--end", end]
        command += ["--workers", "1", "--status-file", str(self._status)]
        self._child = start_child(command, self._log, env={**os.environ, **home.environment()})

    def status(self) -> BackfillStatus:
        """What it last said of itself."""
        return read_status(self._status, BackfillStatus)

    def has_ended(self) -> bool:
        """Whether it is over. Raises ActorRiskError with the end of its log when it failed."""
        code = self._child.poll()
        if code not in (None, 0):
            raise ActorRiskError(f"the backfill failed; the end of {self._log}:\n{log_tail(self._log)}")
        return code == 0

    def stop(self) -> None:
        """Stop it where it is; running it again does the rest."""
        stop_child(self._child, 5.0)


def write_status(path: Path | None, view: str, done: int, total: int) -> None:
    """Say in the file, if one is named, how far the backfill is."""
    replace_status(path, BackfillStatus(view, done, total))
