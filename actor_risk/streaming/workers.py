"""The seam between the supervisor and where workers run: processes of this machine, or Ray actors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from actor_risk.streaming.options import WorkerOptions
from actor_risk.streaming.report import WorkerReport

End = Literal["stopped", "superseded", "refused", "unavailable", "died"]
"""How a worker ended.

stopped       it was told to, finished its batch, committed, and left the group
superseded    workers with newer definitions of the views are at work
refused       it cannot work as it was told to, and would not the next time
unavailable   Redis or the log was away before it had begun
died          anything else
"""


@dataclass(frozen=True)
class Ended:
    """A worker is gone. `detail` says why, for people."""

    how: End
    detail: str = ""


class Worker(Protocol):
    """One running worker."""

    def ended(self) -> Ended | None:
        """How it ended; None while it runs."""
        ...

    def report(self) -> WorkerReport:
        """What it last said of itself."""
        ...

    def stop(self) -> None:
        """Ask it to finish its batch, commit, and leave. Returns at once."""
        ...

    def kill(self) -> None:
        """End it now, if it still runs."""
        ...


class WorkerPool(Protocol):
    """Starts workers."""

    def start(self, name: str, options: WorkerOptions) -> Worker:
        """A new worker of this name, which is that of a worker that ended or of none."""
        ...

    def close(self) -> None:
        """Let go of what the pool holds; its workers have ended."""
        ...
