"""Stream workers as processes of their own, for the stream benchmark, and what every process costs."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event as ThreadEvent
from typing import Any

from bench.events import fold_views
from bench.fold import PROJECT
from materialize.events import AD_EVENTS
from materialize.online import RedisSettings, RowWriter, connect
from materialize.stream import DeadLetters, KafkaLogSettings, open_event_log
from materialize.stream.worker import StreamWorker, WorkerCounts

START_TIMEOUT_S = 120.0
DONE_TIMEOUT_S = 600.0
POLL_S = 0.005
_spawning = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Running:
    """One worker: its process id, and how many records it has taken through the whole protocol."""

    pid: int
    done: Any
    dead_letters: Any

    @property
    def records(self) -> int:
        """As of its last micro-batch."""
        return int(self.done.value)


@contextmanager
def workers(count: int, servers: str, redis_url: str, group: str) -> Iterator[list[Running]]:
    """So many workers of one group over the views of the fold benchmark, killed at the end."""
    running, processes = [], []
    for _ in range(count):
        done, dead = _spawning.RawValue(ctypes.c_int64), _spawning.RawValue(ctypes.c_int64)
        process = _spawning.Process(target=_work, args=(servers, redis_url, group, done, dead), daemon=True)
        process.start()
        processes.append(process)
        running.append(Running(process.pid or 0, done, dead))
    try:
        yield running
    finally:
        for process in processes:
            process.kill()
            process.join()


def wait_for(what: str, condition: Any, timeout_s: float) -> float:
    """The time (monotonic) at which the condition held first. Raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s until {what}, and it did not happen")
        time.sleep(POLL_S)
    return time.monotonic()


def cpu_seconds(pid: int) -> float:
    """Seconds of one core that a process has used, by all its threads; NaN where the system does not say."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return float("nan")
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _work(servers: str, redis_url: str, group: str, done: Any, dead: Any) -> None:
    with (
        closing(open_event_log(KafkaLogSettings(bootstrap_servers=servers))) as log,
        closing(connect(RedisSettings(url=redis_url))) as client,
    ):
        consumer, letters = log.consumer([AD_EVENTS], group), DeadLetters(log)
        worker = StreamWorker(PROJECT, fold_views(), consumer, RowWriter(client), letters, _now_ms)

        def note(counts: WorkerCounts) -> None:
            done.value = counts.records
            dead.value = sum(counts.dead_letters.values())

        worker.run(ThreadEvent(), note)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
