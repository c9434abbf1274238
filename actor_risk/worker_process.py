"""The stream worker as a child process, and what it runs."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event as ThreadEvent

import msgspec

from actor_risk.errors import ActorRiskError
from actor_risk.feast_repo import stream_views
from actor_risk.home import Home
from actor_risk.local import start_child, wait_until
from actor_risk.local.processes import log_tail
from actor_risk.serving_process import stop_child
from actor_risk.status_file import read_status, replace_status
from materialize.online import RowWriter, connect, redis_settings
from materialize.stream import DeadLetters
from materialize.stream.log import Start
from materialize.stream.worker import StreamWorker, WorkerCounts

DEFAULT_GROUP = "materialize"
READY_TIMEOUT_S = 60.0


def run_worker(
    home: Home,
    group: str,
    start: Start,
    on_ready: Callable[[WorkerCounts], None],
    on_batch: Callable[[WorkerCounts], None],
    stop: ThreadEvent,
) -> WorkerCounts:
    """Fold the events of all stream views' topics into their rows until `stop` is set; returns what was done.

    `on_ready` is called when the worker owns partitions, `on_batch` after every micro-batch.
    Raises ActorRiskError when the registry has no stream views.
    """
    store = home.feature_store()
    views = stream_views(store)
    if not views:
        raise ActorRiskError("the registry has no stream views: run `actor-risk apply` first")
    topics = sorted({view.topic for view in views})
    log = home.event_log()
    log.ensure_topics(topics)
    consumer = log.consumer(topics, group, start)
    dead_letters = DeadLetters(log)
    client = connect(redis_settings(store))
    worker = StreamWorker(store.project, views, consumer, RowWriter(client), dead_letters, _now_ms)
    try:
        worker.run(stop, on_batch, on_ready)
    finally:
        consumer.close()
        dead_letters.close()
        log.close()
        client.close()
    return worker.counts


def stop_on_signals() -> ThreadEvent:
    """An event that SIGTERM and SIGINT set, so that the worker finishes its batch and commits."""
    stop = ThreadEvent()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


class WorkerStatus(msgspec.Struct, frozen=True):
    """What a worker says of itself: records taken through the whole protocol, and how many of them are dead letters."""

    records: int = 0
    dead_letters: int = 0


class WorkerProcess:
    """A running worker; it ends with this process, or when it is stopped."""

    def __init__(self, home: Home, group: str, start: Start) -> None:
        self._log = home.logs / "stream.log"
        self._status = home.root / "stream.json"
        self._log.unlink(missing_ok=True)
        self._status.unlink(missing_ok=True)
        command = [sys.executable, "-m", "actor_risk.cli", "stream", "--group", group, "--from", start]
        command += ["--status-file", str(self._status)]
        self._child = start_child(command, self._log, env={**os.environ, **home.environment()})

    def wait_until_ready(self) -> None:
        """Return when it owns its partitions. Raises ActorRiskError with the end of its log."""
        try:
            wait_until(
                lambda: self._status.exists() or self._has_ended(), READY_TIMEOUT_S, "the stream worker is ready"
            )
        except Exception as error:
            raise ActorRiskError(f"{error}; the end of {self._log}:\n{log_tail(self._log)}") from error
        if self._has_ended():
            raise ActorRiskError(f"the stream worker ended; the end of {self._log}:\n{log_tail(self._log)}")

    def wait_until_done(self, records: int, timeout_s: float) -> None:
        """Return when it has taken `records` records through the whole protocol. Raises DeadlineError."""
        wait_until(lambda: self.status().records >= records, timeout_s, f"the worker has taken {records:,} events")

    def status(self) -> WorkerStatus:
        """What it last said of itself."""
        return read_status(self._status, WorkerStatus)

    def stop(self) -> None:
        """Let it finish its batch and stop."""
        stop_child(self._child, 10.0)

    def _has_ended(self) -> bool:
        return self._child.poll() is not None


def write_status(path: Path | None, counts: WorkerCounts) -> None:
    """Say in the file, if one is named, what the worker has done so far."""
    replace_status(path, WorkerStatus(records=counts.records, dead_letters=sum(counts.dead_letters.values())))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
