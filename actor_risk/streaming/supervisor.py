"""Keeps the workers of one command running: starts again those that die, and stops all when told to."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event as ThreadEvent

import msgspec

from actor_risk.errors import ActorRiskError
from actor_risk.streaming.options import WorkerOptions
from actor_risk.streaming.report import StreamStatus, WorkerReport
from actor_risk.streaming.restarts import Deaths, RestartPolicy
from actor_risk.streaming.workers import Ended, Worker, WorkerPool

LOOK_EVERY_S = 0.1
STOP_TIMEOUT_S = 30.0

_log = logging.getLogger(__name__)


@dataclass
class _Place:
    """One worker of the command, whichever process it is at the moment."""

    name: str
    deaths: Deaths
    worker: Worker | None = None
    start_at_s: float = 0.0
    restarts: int = 0
    trouble: str = ""
    report: WorkerReport = field(default_factory=WorkerReport)
    before: tuple[int, int] = (0, 0)
    """Records and dead letters of those that were here before."""

    def look(self) -> Ended | None:
        """Read the worker's report. Returns how it ended, if it has."""
        if self.worker is None:
            return None
        ended = self.worker.ended()
        self.report = self.worker.report()
        if self.report.partitions:
            self.trouble = ""
        return ended

    def let_go(self) -> None:
        """The worker is gone; what it did still counts."""
        if self.worker is not None:
            self.worker.kill()  # an actor outlives its work
        records, put_aside = self.before
        self.before = (records + self.report.records, put_aside + self.report.put_aside)
        self.worker, self.report = None, WorkerReport()


class Supervisor:
    """Runs `count` workers of one pool until it is told to stop."""

    def __init__(
        self,
        pool: WorkerPool,
        count: int,
        options: WorkerOptions,
        policy: RestartPolicy | None = None,
        clock_s: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        pid: int = 0,
    ) -> None:
        """`clock_s` is monotonic."""
        self._pool = pool
        self._options = options
        self._clock_s = clock_s
        self._now_ms = now_ms
        self._pid = pid
        self._places = [_Place(f"worker-{n}", Deaths(policy or RestartPolicy())) for n in range(count)]

    def run(self, stop: ThreadEvent, tell: Callable[[StreamStatus], None]) -> StreamStatus:
        """Until `stop` is set, and then until each worker has finished its batch. Returns the last status.

        `tell` hears the status every LOOK_EVERY_S. Raises ActorRiskError when the workers cannot go on: all are then
        stopped.
        """
        try:
            while not stop.wait(LOOK_EVERY_S):
                for place in self._places:
                    self._tend(place)
                tell(self.status())
        finally:
            self._stop()
        status = self.status()
        tell(status)
        return status

    def status(self) -> StreamStatus:
        """What the workers do, as of the last look."""
        places = self._places
        return StreamStatus(
            pid=self._pid,
            at_ms=self._now_ms(),
            group=self._options.group,
            records=sum(place.before[0] + place.report.records for place in places),
            dead_letters=sum(place.before[1] + place.report.put_aside for place in places),
            workers={place.name: place.report for place in places if place.worker is not None},
            restarts={place.name: place.restarts for place in places},
            trouble={place.name: place.trouble for place in places if place.trouble},
        )

    def _tend(self, place: _Place) -> None:
        if place.worker is None:
            if self._clock_s() >= place.start_at_s:
                place.worker = self._pool.start(place.name, self._options_for(place))
            return
        ended = place.look()
        if ended is None:
            return
        had_begun = bool(place.report.at_ms)
        place.let_go()
        if ended.how == "refused" or (ended.how == "superseded" and not had_begun):
            raise ActorRiskError(f"{place.name} cannot work: {ended.detail}")
        self._start_later(place, ended)

    def _start_later(self, place: _Place, ended: Ended) -> None:
        now_s = self._clock_s()
        wait_s = place.deaths.note(now_s)
        if wait_s is None and ended.how == "unavailable":
            wait_s = place.deaths.policy.longest_s
        if wait_s is None:
            policy = place.deaths.policy
            raise ActorRiskError(
                f"{place.name} died more than {policy.deaths_max} times within {policy.window_s:.0f} s, so all workers "
                f"were stopped; the last time: {ended.detail}"
            )
        place.restarts += 1
        place.start_at_s = now_s + wait_s
        place.trouble = f"{ended.how}, started again after {wait_s:.1f} s: {ended.detail}"
        _log.warning("%s %s", place.name, place.trouble)

    def _options_for(self, place: _Place) -> WorkerOptions:
        """Definitions are taken over once: a worker that is started again must not win over still newer ones."""
        return msgspec.structs.replace(self._options, take_over=self._options.take_over and not place.restarts)

    def _stop(self) -> None:
        """Let all finish what they have begun, and end those that do not."""
        for place in self._places:
            if place.worker is not None:
                place.worker.stop()
        deadline_s = self._clock_s() + STOP_TIMEOUT_S
        try:
            while self._are_running() and self._clock_s() < deadline_s:
                time.sleep(LOOK_EVERY_S)
        finally:
            for place in self._places:
                if place.worker is not None:
                    place.worker.kill()
                    place.look()
            self._pool.close()

    def _are_running(self) -> bool:
        return any(place.worker is not None and place.worker.ended() is None for place in self._places)
