"""A pool whose workers do what a test says, and reports as workers make them."""

from __future__ import annotations

from dataclasses import dataclass, field

from actor_risk.streaming.options import WorkerOptions
from actor_risk.streaming.report import StreamStatus, WorkerReport
from actor_risk.streaming.workers import End, Ended
from materialize.stream.measures import FRESHNESS_S, Distribution


@dataclass
class FakeWorker:
    """See `Worker`. It stops when it is asked to, unless it is `stubborn`."""

    options: WorkerOptions
    stubborn: bool = False
    said: WorkerReport = field(default_factory=WorkerReport)
    end: Ended | None = None
    killed: bool = False

    def ended(self) -> Ended | None:
        return self.end

    def report(self) -> WorkerReport:
        return self.said

    def stop(self) -> None:
        if not self.stubborn and self.end is None:
            self.end = Ended("stopped")

    def kill(self) -> None:
        self.killed = True
        self.end = self.end or Ended("died", "killed")

    def end_as(self, how: End, detail: str = "why") -> None:
        self.end = Ended(how, detail)


class FakePool:
    """See `WorkerPool`. `started`: by name, the workers that there have been."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self.started: dict[str, list[FakeWorker]] = {}
        self.closed = False
        self._stubborn = stubborn

    def start(self, name: str, options: WorkerOptions) -> FakeWorker:
        worker = FakeWorker(options, self._stubborn)
        self.started.setdefault(name, []).append(worker)
        return worker

    def close(self) -> None:
        self.closed = True

    def newest(self, name: str = "worker-0") -> FakeWorker:
        return self.started[name][-1]


def report(records: int, at_ms: int, pid: int = 1, fresh_s: float = 0.02, **more: object) -> WorkerReport:
    """A worker that folded so many records, each `fresh_s` after the log took it, and is busy."""
    fresh = Distribution.over(FRESHNESS_S)
    fresh.add(fresh_s, records)
    values: dict[str, object] = {
        "state": "working",
        "partitions": ["ad_events:0"],
        "since_log_s": fresh,
        "since_event_s": fresh,
        "lag": {"ad_events:0": 7},
        **more,
    }
    return WorkerReport(pid=pid, at_ms=at_ms, records=records, **values)  # type: ignore[arg-type]


def status(at_ms: int, **workers: WorkerReport) -> StreamStatus:
    """That of a command with these workers."""
    named = {name.replace("_", "-"): said for name, said in workers.items()}
    return StreamStatus(
        at_ms=at_ms, group="a-group", records=sum(said.records for said in workers.values()), workers=named
    )
