"""Two worker processes, as a backfill job has them; what they are asked, in order, and their memory at the most."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Generic, TypeVar

import redis

from materialize.online import RowWriter

WORKERS = 2

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Worked(Generic[Result]):
    """What the tasks gave, and how long all of them took."""

    results: list[Result]
    seconds: float


class TwoWorkers:
    """Use as a context manager. Starting the processes, importing and loading compiled code is done when it is open."""

    def __init__(self, warm_up: Callable[[], object]) -> None:
        """warm_up: called in each process at its start."""
        spawning = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(WORKERS, mp_context=spawning, initializer=warm_up)

    def __enter__(self) -> TwoWorkers:
        for started in [self._pool.submit(time.sleep, 0.5) for _ in range(WORKERS)]:  # both must take one to be up
            started.result()
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def work(self, do: Callable[[Task], Result], tasks: Sequence[Task]) -> Worked[Result]:
        """Do the tasks, each worker the next one when it is free."""
        began = time.perf_counter()
        results = list(self._pool.map(do, tasks))
        return Worked(results, time.perf_counter() - began)

    def peak_mib(self) -> int:
        """The most memory that a process had so far, Python and all libraries included. Pages of mapped files count."""
        return max(one for one in self._pool.map(_peak_mib, range(4 * WORKERS)))


@lru_cache
def writer_of(url: str) -> RowWriter:
    """A worker's one writer."""
    return RowWriter(redis.Redis.from_url(url))


def _peak_mib(_: int) -> int:
    time.sleep(0.05)
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) >> 10
