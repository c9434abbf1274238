"""Workers as Ray actors, on a cluster or on a Ray of our own. The only module of this package that imports Ray."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Event as ThreadEvent
from typing import Any

import ray

from actor_risk.errors import ActorRiskError
from actor_risk.home import Home
from actor_risk.streaming.endings import how_it_ended
from actor_risk.streaming.options import WorkerOptions
from actor_risk.streaming.report import WorkerReport
from actor_risk.streaming.workers import Ended
from materialize.personal import reason_of

OWN_RAY = "local"
_CALLS_AT_ONCE = 3  # it works in one of them, and is asked, and stopped, in the others


class StreamWorkerActor:
    """What runs in the actor's process."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._stop = ThreadEvent()
        self._report = WorkerReport()

    def work(self) -> Ended:
        """Until it is told to stop, or cannot go on."""
        from actor_risk.streaming.run import run_worker

        try:
            run_worker(Home.from_environment(os.environ), self._options, self._stop, self._take)
        except Exception as error:  # whatever it is, the supervisor is told
            how = how_it_ended(error)
            return Ended(how, reason_of(error))
        return Ended("stopped")

    def report(self) -> WorkerReport:
        """What the worker last said of itself."""
        return self._report

    def stop(self) -> None:
        """Let it finish its batch, commit, and leave."""
        self._stop.set()

    def _take(self, report: WorkerReport) -> None:
        self._report = report


class RayWorker:
    """See `Worker`."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._work = actor.work.remote()
        self._asked = actor.report.remote()
        self._report = WorkerReport()

    def ended(self) -> Ended | None:
        """See `Worker.ended`."""
        found: Ended | None = _result(self._work, lambda error: Ended("died", str(error)))
        return found

    def report(self) -> WorkerReport:
        """See `Worker.report`: the answer to the call before, which is not waited for."""
        answer = _result(self._asked, lambda _: self._report)
        if answer is not None:
            self._report = answer
            self._asked = self._actor.report.remote()
        return self._report

    def stop(self) -> None:
        """See `Worker.stop`."""
        self._actor.stop.remote()

    def kill(self) -> None:
        """See `Worker.kill`. The last report is waited for a moment if the worker has ended by itself."""
        if self.ended() is not None:
            self._asked = self._actor.report.remote()
            ray.wait([self._asked], timeout=1.0)
            self.report()
        ray.kill(self._actor)


class RayPool:
    """See `WorkerPool`: one core for each worker, wherever in the cluster it is free."""

    def __init__(self, home: Home, address: str, count: int) -> None:
        """`address` of a cluster, or OWN_RAY for one of our own with a core for each of `count` workers.

        Raises ActorRiskError when there is no cluster at the address.
        """
        try:
            ray.init(
                address=address,
                num_cpus=count if address == OWN_RAY else None,
                include_dashboard=False if address == OWN_RAY else None,
                log_to_driver=False,
                logging_level="ERROR",
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ActorRiskError(f"no Ray cluster at {address!r}: {error}") from error
        variables = {**home.environment(), "OMP_NUM_THREADS": "1"}
        self._started = 0
        self._actor_class: Any = ray.remote(
            num_cpus=1, max_concurrency=_CALLS_AT_ONCE, max_restarts=0, runtime_env={"env_vars": variables}
        )(StreamWorkerActor)

    def start(self, name: str, options: WorkerOptions) -> RayWorker:
        """See `WorkerPool.start`. While the cluster has no free core the worker waits for one."""
        self._started += 1
        return RayWorker(self._actor_class.options(name=f"stream-{os.getpid()}-{name}-{self._started}").remote(options))

    def close(self) -> None:
        """See `WorkerPool.close`."""
        ray.shutdown()


def _result(reference: Any, on_death: Callable[[Exception], Any]) -> Any:
    """What a call gave, None if it is not over. `on_death` tells what it is when the actor is gone."""
    ready, _ = ray.wait([reference], timeout=0)
    if not ready:
        return None
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        return on_death(error)
