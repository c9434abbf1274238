"""Workers and logs for tests: opened together, closed together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

import redis

from materialize.definitions import StreamView
from materialize.online import RowWriter
from materialize.stream import (
    DeadLetters,
    EventLog,
    EventLogConsumer,
    EventLogSettings,
    LogUnavailableError,
    open_event_log,
)
from materialize.stream.worker import StreamWorker, WorkerSettings


@dataclass(frozen=True)
class Bench:
    """A log, its dead letters, and a client of the rows."""

    log: EventLog
    dead_letters: DeadLetters
    client: redis.Redis
    project: str

    @contextmanager
    def worker(
        self,
        views: Sequence[StreamView],
        now_ms: Callable[[], int],
        group: str = "workers",
        settings: WorkerSettings | None = None,
    ) -> Iterator[StreamWorker]:
        """A member of the group."""
        topics = sorted({view.topic for view in views})
        with closing(self.log.consumer(topics, group)) as consumer:
            yield StreamWorker(
                self.project, views, consumer, RowWriter(self.client), self.dead_letters, now_ms, settings
            )


@contextmanager
def open_bench(log_settings: EventLogSettings, redis_url: str, project: str) -> Iterator[Bench]:
    """The log and the rows, freed at the end."""
    with closing(open_event_log(log_settings)) as log, redis.Redis.from_url(redis_url) as client:
        dead_letters = DeadLetters(log)
        try:
            yield Bench(log, dead_letters, client, project)
        finally:
            with suppress(LogUnavailableError):  # a test may have stopped the server
                dead_letters.close()


def run_until(worker: StreamWorker, is_done: Callable[[], bool], rounds_max: int = 2_000) -> None:
    """Run micro-batches until the condition holds."""
    for _ in range(rounds_max):
        if is_done():
            return
        worker.run_once()
    raise AssertionError(f"not done after {rounds_max} micro-batches: {worker.counts}")


def poll_until_assigned(consumer: EventLogConsumer, partitions: int, rounds_max: int = 1_000) -> None:
    """Poll until the consumer has so many partitions; what it polled meanwhile is dropped."""
    for _ in range(rounds_max):
        consumer.poll(1, 50)
        if len(consumer.assignment()) == partitions:
            return
    raise AssertionError(f"only {len(consumer.assignment())} of {partitions} partitions after {rounds_max} polls")
