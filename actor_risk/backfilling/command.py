"""One backfill command: jobs for its views, one after the other, and a report of all of them."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import redis
from feast import FeatureStore

from actor_risk.feast_repo import advance_watermark, view_names, view_to_fill
from actor_risk.home import Home
from materialize.backfill import (
    Executor,
    Inline,
    JobSettings,
    JobStatus,
    Plan,
    Span,
    ViewJob,
    ViewReport,
    moment,
    step_ms,
    write_whole,
)
from materialize.online import connect, redis_settings

SMALL_ROWS = 2_000_000
"""A command with fewer rows to read is done in its own process, unless told otherwise: starting Ray takes longer."""
REPORTS_KEPT = 50
LOOK_EVERY_S = 2.0
"""How often a running job looks whether the registry still has its definition."""


@dataclass(frozen=True)
class BackfillOptions:
    """What a command was asked for. views: all if there are none. workers: None to choose by the work."""

    views: tuple[str, ...]
    start_ms: int
    end_ms: int
    step: str = "1d"
    workers: int | None = None
    address: str | None = None
    resume: bool = False
    ignore_quality: bool = False
    wait: bool = False

    def to_resume(self) -> str:
        """The command that goes on where this one stopped, with its times written out."""
        words = ["actor-risk backfill"]
        words += [f"--view {view}" for view in self.views]
        words += [f"--start {moment(self.start_ms)}", f"--end {moment(self.end_ms)}"]
        words += [f"--step {self.step}"] if self.step != "1d" else []
        words += [f"--workers {self.workers}"] if self.workers is not None else []
        words += [f"--address {self.address}"] if self.address is not None else []
        words += ["--ignore-quality"] if self.ignore_quality else []
        return " ".join([*words, "--resume"])


class CommandReport(msgspec.Struct, frozen=True):
    """What became of a command. at: when it ended."""

    at: str
    host: str
    pid: int
    seconds: float
    resume: str
    views: list[ViewReport]


class Backfill:
    """The jobs of one command. Close it when it is done with."""

    def __init__(self, home: Home, options: BackfillOptions) -> None:
        """Raises ActorRiskError for a view that there is not, DefinitionError or QualityError for one that is wrong."""
        self.options = options
        self._home = home
        self._held = ExitStack()
        self._store: FeatureStore = home.feature_store()
        settings = redis_settings(self._store)
        self._client: redis.Redis = connect(settings)
        self._held.callback(self._client.close)
        job_settings = JobSettings(
            self._store.project,
            self._store.config.repo_path,
            settings,
            home.backfill,
            step_ms(options.step),
            is_resumed=options.resume,
            ignores_quality=options.ignore_quality,
            waits=options.wait,
        )
        asked = Span(options.start_ms, options.end_ms)
        names = list(dict.fromkeys(options.views)) or view_names(self._store)
        self._jobs = {
            name: ViewJob(view_to_fill(self._store, name), asked, job_settings, self._client) for name in names
        }
        self._reports: list[ViewReport] = []
        self._began_s = time.monotonic()
        self._look_at_s = self._began_s + LOOK_EVERY_S

    def plans(self) -> list[Plan]:
        """What each job has to do. Writes nothing. Raises what `ViewJob.plan` does."""
        return [job.plan() for job in self._jobs.values()]

    def executor(self, plans: Sequence[Plan]) -> Executor:
        """Where it is done: on the cluster that is named; on a Ray of its own for several workers, or much; or here.

        Raises ClusterError.
        """
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        rows = sum(plan.rows_to_do for plan in plans)
        workers = self.options.workers or (1 if rows < SMALL_ROWS else cores)
        if self.options.address is None and workers == 1:
            return Inline(self._client)
        from materialize.backfill.on_ray import OWN_RAY, RayExecutor  # brings Ray

        executor = RayExecutor(
            self.options.address or OWN_RAY, self.options.workers if self.options.address else workers
        )
        self._held.callback(executor.close)
        return executor

    def run(self, executor: Executor, alive: Callable[[], None], tell: Callable[[JobStatus], None]) -> None:
        """Do the jobs, until all are done or one raises; `report` has what became of each that was begun."""
        lock = self._home.registry_lock
        for name, job in self._jobs.items():

            def advance(span: Span, name: str = name, job: ViewJob = job) -> None:
                advance_watermark(self._store, name, span.start_ms, span.end_ms, lock, job.check)

            def goes_on(name: str = name, job: ViewJob = job) -> None:
                alive()
                if self._is_time_to_look():
                    self._store.refresh_registry()
                    job.check(view_to_fill(self._store, name))

            try:
                job.run(executor, goes_on, tell, advance)
            finally:
                self._reports.append(job.report())

    def _is_time_to_look(self) -> bool:
        """Whether the registry has not been looked at for LOOK_EVERY_S."""
        now_s = time.monotonic()
        if now_s < self._look_at_s:
            return False
        self._look_at_s = now_s + LOOK_EVERY_S
        return True

    def report(self) -> CommandReport:
        """What became of the jobs so far."""
        return CommandReport(
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            host=platform.node(),
            pid=os.getpid(),
            seconds=round(time.monotonic() - self._began_s, 3),
            resume=self.options.to_resume(),
            views=self._reports,
        )

    def close(self) -> None:
        """Let go of Redis, and of a Ray of its own."""
        self._held.close()


def keep_report(home: Home, report: CommandReport, path: Path | None) -> Path:
    """Write the report to the path, or among the home's reports, of which the newest are kept. Returns where it is."""
    folder = home.backfill / "reports"
    if path is None:
        path = folder / f"{report.at[:19].replace(':', '').replace('-', '')}Z-{report.pid}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    for old in sorted(folder.glob("*.json"))[:-REPORTS_KEPT]:
        old.unlink(missing_ok=True)
    return path
