"""The parts of a job as tasks of Ray, on a cluster or on a Ray of our own. The only module of this package with Ray."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import ray

from materialize.backfill._errors import ChunkLostError, ClusterError
from materialize.backfill._executors import Watcher
from materialize.backfill._parts import Part, Work, run_remote

OWN_RAY = "local"
TRIES_MAX = 4
"""How often a part is begun whose worker, or whose machine, dies."""

_LOOK_EVERY_S = 0.2
_REPORT_EVERY = 3


class RayExecutor:
    """See `Executor`: each part is a task with one core, wherever the cluster has one free; `workers` at a time."""

    def __init__(self, address: str, workers: int | None) -> None:
        """`address` of a cluster (`auto`, HOST:PORT, ray://…), or OWN_RAY for one of our own.

        workers: parts at a time, and the cores of our own Ray; None for as many as there are cores.

        Raises ClusterError when there is no cluster at the address.
        """
        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            _connect(address, workers)
        self._workers = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self.name = f"on Ray ({address}), {self._workers} at a time"
        self._task: Any = ray.remote(num_cpus=1, max_retries=0, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}})(
            run_remote
        )

    def run(self, work: Work, parts: Sequence[Part], watcher: Watcher) -> None:
        """See `Executor.run`. A part whose worker dies is done again, TRIES_MAX times in all; Ray's own retries, which
        tell nobody, are off."""
        shared = ray.put(work)
        waiting, tries, looks = deque(parts), dict.fromkeys(parts, 0), 0
        running: dict[Any, Part] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self._workers:
                    part = waiting.popleft()
                    tries[part] += 1
                    running[self._task.remote(shared, part)] = part
                ready, _ = ray.wait(list(running), timeout=_LOOK_EVERY_S)
                watcher.go_on()
                for reference in ready:
                    part = running.pop(reference)
                    if not _take(reference, part, watcher, tries[part] < TRIES_MAX):
                        waiting.append(part)
                looks += 1
                if looks % _REPORT_EVERY == 0:
                    watcher.look()
        finally:
            for reference in running:
                ray.cancel(reference, force=True)

    def close(self) -> None:
        """See `Executor.close`."""
        if self._is_ours:
            ray.shutdown()


def _connect(address: str, workers: int | None) -> None:
    is_own = address == OWN_RAY
    try:
        ray.init(
            address=address,
            num_cpus=workers if is_own else None,
            include_dashboard=False if is_own else None,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ClusterError(
            f"no Ray cluster at {address!r}: {error}; start one with `ray start --head`, or leave --address out"
        ) from error


def _take(reference: Any, part: Part, watcher: Watcher, may_try_again: bool) -> bool:
    """Hand over what the part gave. Returns whether it is done: not if its worker died, and it may be begun again."""
    try:
        outcome = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause: BaseException = error.cause if isinstance(error.cause, BaseException) else error
        cause.add_note(f"in {part.name}")
        raise cause from None
    except ray.exceptions.RayError as error:
        why = str(error).partition("\n")[0].partition(". ")[0]
        watcher.lost(part, may_try_again, why)
        if may_try_again:
            return False
        raise ChunkLostError(
            f"{part.name} was begun {TRIES_MAX} times, and its worker died each time; the last time: {why}. "
            "If it was killed for memory, choose a shorter --step"
        ) from error
    watcher.finished(part, outcome)
    return True
