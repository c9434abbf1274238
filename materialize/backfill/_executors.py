"""Where the parts of a job run: here, one after the other, or on Ray (`on_ray`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import redis

from materialize.backfill._parts import Outcome, Part, Work, run_part


class Watcher(Protocol):
    """Who waits for the parts: told what is done, and asked whether to go on."""

    def go_on(self) -> None:
        """Raises when the job is to end."""

    def heard(self, rows_done: dict[str, tuple[int, int]]) -> None:
        """How far the running parts are: for each, rows done and rows in all."""

    def look(self) -> None:
        """Find out how far the running parts are, from what they told Redis."""

    def finished(self, part: Part, outcome: Outcome) -> None:
        """A part is done. Raises when the job cannot go on."""

    def lost(self, part: Part, again: bool, why: str) -> None:
        """A part's worker died; whether it is done again."""


class Executor(Protocol):
    """Runs parts until all are done, or until the first one fails."""

    name: str
    """For people: where the work is done."""

    def run(self, work: Work, parts: Sequence[Part], watcher: Watcher) -> None:
        """Do all parts. Raises what a part raises, with a note that says which it was, and what the watcher raises."""

    def close(self) -> None:
        """Let go of what it runs on."""


class Inline:
    """See `Executor`: in this process, one part after the other."""

    name = "in this process"

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def run(self, work: Work, parts: Sequence[Part], watcher: Watcher) -> None:
        """See `Executor.run`."""
        for part in parts:
            watcher.go_on()
            with_note(part, lambda part=part: self._one(work, part, watcher))  # type: ignore[misc]

    def close(self) -> None:
        """See `Executor.close`."""

    def _one(self, work: Work, part: Part, watcher: Watcher) -> None:
        def heard(done: int, total: int) -> None:
            watcher.go_on()
            watcher.heard({part.name: (done, total)})

        watcher.finished(part, run_part(work, part, self._client, heard))


def with_note(part: Part, call: Callable[[], None]) -> None:
    """Call it; what it raises says which part it was."""
    try:
        call()
    except Exception as error:
        error.add_note(f"in {part.name}")
        raise
