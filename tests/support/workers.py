"""Worker processes that can be killed, stopped and continued, and their work finished by somebody else."""

from __future__ import annotations

import faulthandler
import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from actor_risk.local import wait_until
from actor_risk.signals import set_by_signals
from materialize.definitions import StreamView
from materialize.online import RedisSettings, RowWriter, connect
from materialize.stream import DeadLetters, EventLogSettings, open_event_log
from materialize.stream.worker import StreamWorker, WorkerCounts, WorkerSettings
from tests.support.children import CHILDREN, start_child_of_tests
from tests.support.streaming import run_until

DEADLINE_S = 60.0
SMALL = WorkerSettings(batch_records_max=40, poll_timeout_ms=50, retry_first_s=0.02, retry_max_s=0.1)
LARGER = replace(SMALL, batch_records_max=250)
NOTE_EVERY_S = 0.02
"""A worker that waits notes its counts so often, one that works after each batch."""
SAY_WHERE, SAY_S = signal.SIGUSR1, 1.0
NOTED = ("records", "folded", "replayed", "retries", "commits_rejected", "records_lost")


@dataclass(frozen=True)
class Work:
    """What the workers of one group do, and how they reach what they need."""

    log: EventLogSettings
    redis: RedisSettings
    project: str
    views: Sequence[StreamView]
    now_ms: int
    group: str = "workers"
    settings: WorkerSettings = SMALL

    @property
    def topics(self) -> list[str]:
        """The topics that the views read."""
        return sorted({view.topic for view in self.views})


class Running:
    """A worker process, started here, and what it says of itself."""

    def __init__(self, work: Work) -> None:
        # Without a lock, which a killed worker might hold for ever. The last one: whether it has reached what it needs.
        self._noted = CHILDREN.RawArray("q", len(NOTED) + 1)
        self._told = tempfile.NamedTemporaryFile(mode="r")  # noqa: SIM115 - it goes with this object
        self._process = start_child_of_tests(_work_for_ever, work, self._told.name, shared=self._noted)

    @property
    def records(self) -> int:
        """How many records it has done with."""
        return self.noted("records")

    def noted(self, name: str) -> int:
        """One of the counts of NOTED."""
        return int(self._noted[NOTED.index(name)])

    @property
    def has_begun(self) -> bool:
        """Whether it has reached the log, and will wait for it from now on."""
        return bool(self._noted[-1])

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.is_alive()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self._process.pid or 0, number)

    def where(self) -> str:
        """The stacks of its threads."""
        self.signal(SAY_WHERE)
        self.wait(SAY_S)
        return self._told.read()

    def wait(self, seconds: float) -> None:
        """Return after so long, or when it ended by itself."""
        self._process.join(seconds)

    def end(self) -> None:
        """SIGKILL, if it still runs."""
        self._process.kill()
        self._process.join()


class Herd:
    """Some workers of one group. A killed one is replaced, and what it noted still counts."""

    def __init__(self, work: Work, size: int) -> None:
        self._work = work
        self._gone: list[Running] = []
        self.alive = [Running(work) for _ in range(size)]

    def noted(self, name: str) -> int:
        """One of the counts of NOTED, of all workers that there have been."""
        return sum(worker.noted(name) for worker in (*self._gone, *self.alive))

    def kill(self, place: int) -> None:
        """SIGKILL for the worker at this place, and a new one there."""
        self.assert_alive()
        self.alive[place].end()
        self._gone.append(self.alive[place])
        self.alive[place] = Running(self._work)

    def wait_until_begun(self) -> None:
        """Return when all are at work: who does not reach the log at its start ends, for others to start again."""
        wait_until(lambda: all(worker.has_begun for worker in self.alive), DEADLINE_S, "all workers have begun")

    def wait_until_done(self, records: int) -> None:
        """Return when they have taken so many records through the protocol, repeated ones included.

        A worker that was killed between a commit and its note has done a batch that nobody counts.
        """
        not_counted = len(self._gone) * self._work.settings.batch_records_max
        while self.noted("records") + not_counted < records:
            self.wait_for_more("records")

    def wait_for_more(self, name: str) -> None:
        """Return when one of the counts of NOTED has grown."""
        before = self.noted(name)
        wait_until(lambda: self.noted(name) > before, DEADLINE_S, f"{name} are more than {before:,}")

    def wait(self, seconds: float) -> None:
        """Let them work for so long."""
        self.alive[0].wait(seconds)

    def assert_alive(self) -> None:
        """No worker ended by itself."""
        assert all(worker.is_alive for worker in self.alive), "a worker ended by itself"

    def __enter__(self) -> Herd:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        """They leave the group, or are killed when something failed."""
        for worker in self.alive:
            if failed is None:
                worker.signal(signal.SIGTERM)
        for worker in self.alive:
            if failed is None:
                worker.wait(DEADLINE_S)
                assert not worker.is_alive, f"not over {DEADLINE_S:g} s after SIGTERM:\n{worker.where()}"
            worker.end()


@contextmanager
def running(work: Work) -> Iterator[Running]:
    """A worker process, killed at the end."""
    worker = Running(work)
    try:
        yield worker
    finally:
        worker.end()


def finish(work: Work) -> WorkerCounts:
    """Works until nothing is left to do in any partition; the settings of the rows' server must be those of a server
    that answers."""
    with closing(open_event_log(work.log)) as log, closing(connect(work.redis)) as client:
        letters = DeadLetters(log)
        partitions = sum(log.ensure_topics(work.topics).values())
        with closing(log.consumer(work.topics, work.group)) as consumer:
            worker = StreamWorker(work.project, work.views, consumer, RowWriter(client), letters, lambda: work.now_ms)
            run_until(worker, lambda: len(consumer.assignment()) == partitions and not any(consumer.lag().values()))
        letters.close()
        return worker.counts


def _work_for_ever(work: Work, where: str, noted: Any) -> None:
    """What a worker process does, with connections of its own, until it is killed, or told to stop by SIGTERM."""
    stop = set_by_signals([signal.SIGTERM])
    faulthandler.register(SAY_WHERE, os.open(where, os.O_WRONLY))  # open as long as the process is
    with (
        closing(open_event_log(work.log)) as log,
        closing(connect(work.redis)) as client,
        closing(log.consumer(work.topics, work.group)) as consumer,
    ):
        worker = StreamWorker(
            work.project, work.views, consumer, RowWriter(client), DeadLetters(log), lambda: work.now_ms, work.settings
        )

        def note(counts: WorkerCounts) -> None:
            for place, name in enumerate(NOTED):
                noted[place] = getattr(counts, name)

        def note_often() -> None:
            while not stop.wait(NOTE_EVERY_S):
                note(worker.counts)

        noted[-1] = 1
        threading.Thread(target=note_often, daemon=True).start()
        worker.run(stop, note)
