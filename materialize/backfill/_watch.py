"""How far the job of a view is, and what has happened in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from materialize.backfill._lease import Lease
from materialize.backfill._manifest import Counts
from materialize.backfill._parts import Outcome as PartOutcome
from materialize.backfill._parts import Part
from materialize.backfill._quality import Looked
from materialize.backfill._report import JobStatus, Outcome, Phase

WRITING_WEIGHS = 2
"""Writing a row of history takes about so many times as long as looking at it."""

Tell = Callable[[JobStatus], None]


@dataclass
class Run:
    """What has happened in one run."""

    counts: Counts = field(default_factory=Counts)
    seen: Counts = field(default_factory=Counts)
    seconds: float = 0.0
    ran: str = ""
    outcome: Outcome = "failed"
    cause: str = ""
    looked: list[Looked] = field(default_factory=list)
    before: list[Looked] = field(default_factory=list)
    quality: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


class Watch:
    """See `Watcher`: adds up how far the job is, and enters each part that is done."""

    def __init__(self, view: str, lease: Lease, alive: Callable[[], None], tell: Tell, run: Run) -> None:
        self._view = view
        self._lease = lease
        self._alive = alive
        self._tell = tell
        self._run = run
        self._phase: Phase = "waiting"
        self._weights: dict[str, int] = {}
        self._enter: Callable[[Part, PartOutcome], None] | None = None
        self._done: set[str] = set()
        self._running: dict[str, tuple[int, int]] = {}
        self._past = 0
        self._later = 0

    def enter(
        self,
        phase: Phase,
        parts: Sequence[Part],
        later: int = 0,
        finished: Callable[[Part, PartOutcome], None] | None = None,
    ) -> None:
        """A phase begins, and after it there is work of the weight `later`."""
        self._past += sum(self._weights.values())
        weighs = WRITING_WEIGHS if phase == "writing" else 1
        self._phase, self._later, self._enter = phase, later, finished
        self._weights = {part.name: weighs * part.rows for part in parts}
        self._done, self._running = set(), {}
        self._say()

    def go_on(self) -> None:
        """See `Watcher.go_on`."""
        self._lease.check()
        self._alive()

    def heard(self, rows_done: dict[str, tuple[int, int]]) -> None:
        """See `Watcher.heard`."""
        self._running = rows_done
        self._say()

    def look(self) -> None:
        """See `Watcher.look`."""
        told = self._lease.progress()
        self.heard({name: rows for name, rows in told.items() if name in self._weights and name not in self._done})

    def finished(self, part: Part, outcome: PartOutcome) -> None:
        """See `Watcher.finished`."""
        if self._enter is not None:
            self._enter(part, outcome)
        self._done.add(part.name)
        self._running.pop(part.name, None)
        self._say()

    def lost(self, part: Part, again: bool, why: str) -> None:
        """See `Watcher.lost`."""
        self._run.lost.append(f"{part.name}: {why}; {'done again' if again else 'given up'}")

    def _say(self) -> None:
        done: float = sum(self._weights[name] for name in self._done)
        for name, (rows, total) in self._running.items():
            if total:
                done += self._weights.get(name, 0) * rows / total
        everything = self._past + sum(self._weights.values()) + self._later
        share = 1.0 if self._phase == "done" else (self._past + done) / everything if everything else 0.0
        written = self._run.counts.verified + sum(rows for rows, _ in self._running.values())
        self._tell(JobStatus(self._view, self._phase, len(self._done), len(self._weights), share, written))
