"""The job of one view, from its lease to its watermark."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import redis
from feast import FeatureView

from materialize.backfill._errors import LeaseLostError, QualityError, StoppedError, SupersededError, ViewBusyError
from materialize.backfill._executors import Executor
from materialize.backfill._files import take_inventory
from materialize.backfill._lease import Lease, ViewKeys, read_mark
from materialize.backfill._manifest import Counts, JobEntry, LookedEntry, Manifest, RowsEntry, SideEntry
from materialize.backfill._meaning import meaning_of
from materialize.backfill._parts import Gather, Look, Part, Seen, Step, Work, WriteRows, WriteSide
from materialize.backfill._parts import Outcome as PartOutcome
from materialize.backfill._plan import Chunk, Plan, end_of, make_plan
from materialize.backfill._quality import Looked, breaches, column_reports, limits_of
from materialize.backfill._report import Outcome, ViewReport
from materialize.backfill._spans import Span, moment
from materialize.backfill._watch import WRITING_WEIGHS, Run, Tell, Watch
from materialize.definitions import StreamView, compile_view
from materialize.online import RedisSettings
from materialize.personal import reason_of

LOOKED_KEPT = 400
"""Profiles of spans that are kept beyond a job, so that the next one has something to compare with."""
JOBS_KEPT = 20

DAY_MS = 86_400_000


@dataclass(frozen=True)
class JobSettings:
    """How jobs of one project are done. `state`: the folder of the manifests, which workers elsewhere must see.

    is_resumed: do only what is missing. ignores_quality: report broken limits and write all the same. waits: for
    another job that has the view.
    """

    project: str
    repo_path: Path | None
    redis: RedisSettings
    state: Path
    step_ms: int = DAY_MS
    is_resumed: bool = False
    ignores_quality: bool = False
    waits: bool = False


class ViewJob:
    """The backfill of one view over one span.

    1. Take the view's lease: no other job writes it meanwhile.
    2. Forget what the manifest holds of other definitions, of files that changed, and of rows that Redis lost; and,
       unless resumed, of what this job does again.
    3. Look at each chunk: read it and profile it; of a stream view, stage its events by shard. Nothing is written yet.
    4. Hold the profiles against the limits in the view's tags; stop if one is broken.
    5. Write: the newest rows of each chunk, or the batch side of each shard. When a part's rows are acknowledged, count
       it in Redis' mark, then enter it in the manifest.
    6. Enter the job in the manifest, remove what was staged, then advance Feast's watermark.
    7. Give the lease back.

    A job that dies anywhere leaves entries that are true, and rows that the next run writes again to no effect.
    """

    def __init__(
        self,
        feature_view: FeatureView,
        asked: Span,
        settings: JobSettings,
        client: redis.Redis,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """Raises DefinitionError for a view that cannot be computed, QualityError for a tag that is no limit."""
        self.view = compile_view(feature_view)
        self._feature_view = feature_view
        self._source = feature_view.batch_source
        self._asked = asked
        self._settings = settings
        self._client = client
        self._clock_ms = clock_ms
        self._limits = limits_of(self.view, feature_view.tags)
        self._meaning = meaning_of(feature_view, self.view)
        self._manifest = self._opened()
        self._plan: Plan | None = None
        self._batch_end_ms: int | None = None
        self._run = Run()

    def plan(self) -> Plan:
        """What it would do now. Writes nothing, here or in Redis.

        Raises SpanError, HistoryError for files that cannot be read, and OnlineStoreError.
        """
        mark = read_mark(self._client, ViewKeys.of(self._settings.project, self.view.name), is_made=False)
        inventory = take_inventory(self._source, self._settings.repo_path)
        self._plan = make_plan(
            self.view,
            self._asked,
            self._settings.step_ms,
            inventory,
            self._opened(),
            mark,
            is_resumed=self._settings.is_resumed,
        )
        return self._plan

    def check(self, feature_view: FeatureView) -> None:
        """Raises SupersededError unless the view, as the registry has it now, means what this job writes."""
        if meaning_of(feature_view, compile_view(feature_view)) != self._meaning:
            raise SupersededError(
                f"view {self.view.name!r} was defined anew while the job ran, so its rows would be of no use: "
                "run the backfill again, which takes the new definition"
            )

    def run(
        self, executor: Executor, alive: Callable[[], None], tell: Tell, advance: Callable[[Span], None]
    ) -> ViewReport:
        """Do it. `alive` is called often, and raises StoppedError to end the job; `advance` moves the watermark.

        Raises BackfillError, and what a part raises; `report` then tells the rest.
        """
        began_s = time.monotonic()
        self._run = Run(ran=executor.name)
        lease = Lease(self._client, self._settings.project, self.view.name, self._clock_ms)
        watch = Watch(self.view.name, lease, alive, tell, self._run)
        try:
            watch.enter("waiting", [])
            lease.take(self._settings.waits, alive)
            try:
                self._do(executor, lease, watch, began_s)
                advance(self._asked)
            except Exception as error:
                _raise_if_taken_over(lease, error)
                raise
            finally:
                lease.release()
            watch.enter("done", [])
        except BaseException as error:
            self._run.outcome, self._run.cause = _outcome(error), _cause(error)
            raise
        finally:
            self._run.seconds = time.monotonic() - began_s
        return self.report()

    def report(self) -> ViewReport:
        """What became of the last run."""
        plan, run = self._plan or self.plan(), self._run
        seconds = max(run.seconds, 1e-9)
        return ViewReport(
            view=plan.view,
            kind="stream" if plan.is_stream else "batch",
            project=self._settings.project,
            meaning=plan.meaning,
            outcome=run.outcome,
            cause=run.cause,
            start=moment(plan.asked.start_ms),
            end=moment(plan.asked.end_ms),
            read_start=moment(plan.read.start_ms),
            read_end=moment(plan.read.end_ms),
            batch_end=None if self._batch_end_ms is None else moment(self._batch_end_ms),
            chunks=len(plan.chunks),
            chunks_known=len(plan.chunks) - len(plan.to_look if plan.is_stream else plan.to_write),
            shards=plan.shards,
            shards_known=0 if plan.sides is None else plan.shards - len(plan.sides),
            counts=run.counts,
            seconds=round(run.seconds, 3),
            rows_per_second=round(run.counts.verified / seconds, 1),
            ran=run.ran,
            columns=column_reports(run.looked, [*run.before, *run.looked]),
            quality=run.quality,
            holes=[str(hole) for hole in plan.holes],
            lost=run.lost,
        )

    def _do(self, executor: Executor, lease: Lease, watch: Watch, began_s: float) -> None:
        plan = self._planned(lease)
        if plan.is_done:
            self._batch_end_ms = plan.batch_end_ms
            if not plan.is_entered:
                self._finish(plan, lease, began_s)
            self._run.outcome = "nothing to do"
            return
        work = Work.of(
            self._feature_view, self._settings.project, self._settings.repo_path, self._settings.redis, lease.fence
        )
        self._look(plan, work, executor, watch)
        self._check(plan)
        if plan.is_stream:
            self._write_sides(plan, work, executor, lease, watch)
        else:
            self._write_rows(plan, work, executor, lease, watch)
        self._finish(plan, lease, began_s)
        self._run.outcome = "done"

    def _planned(self, lease: Lease) -> Plan:
        """The plan under the lease; what the manifest has beyond it is forgotten."""
        inventory = take_inventory(self._source, self._settings.repo_path)
        manifest = self._manifest = self._opened()
        plan = make_plan(
            self.view,
            self._asked,
            self._settings.step_ms,
            inventory,
            manifest,
            lease.mark,
            is_resumed=self._settings.is_resumed,
        )
        known = plan.known
        manifest.forget(e for e in manifest.entries(LookedEntry) if e.span not in known.looked)
        manifest.forget(e for e in manifest.entries(RowsEntry) if e not in known.rows)
        manifest.forget(e for e in manifest.entries(SideEntry) if e not in known.sides)
        manifest.forget(e for e in known.rows if any(e.span.overlaps(c.span) for c in plan.to_write))
        if not self._settings.is_resumed:
            manifest.forget(known.looked.values())
            manifest.forget(known.sides)
        manifest.clean()
        manifest.clean_staging(e for e in manifest.entries(LookedEntry) if manifest.has_staged(e))
        self._plan = plan
        return plan

    def _look(self, plan: Plan, work: Work, executor: Executor, watch: Watch) -> None:
        """Step 3."""
        chunks = {self._look_part(plan, chunk): chunk for chunk in plan.to_look}

        def seen(part: Part, outcome: PartOutcome) -> None:
            assert isinstance(outcome, Seen)
            chunk = chunks[part]
            span = chunk.span
            self._run.seen = self._run.seen.plus(Counts(events=outcome.events, skipped=outcome.skipped))
            self._manifest.put(
                LookedEntry(
                    span.start_ms,
                    span.end_ms,
                    chunk.inputs,
                    outcome.events,
                    outcome.skipped,
                    outcome.columns,
                    outcome.staged,
                )
            )

        # What is still to be written weighs on the bar from the beginning; of a stream view it is not known yet.
        later = plan.to_write if not plan.is_stream else plan.chunks
        watch.enter("looking", list(chunks), WRITING_WEIGHS * sum(chunk.rows for chunk in later), seen)
        executor.run(work, list(chunks), watch)

    def _look_part(self, plan: Plan, chunk: Chunk) -> Part:
        step: Step = Look(chunk.span)
        if plan.is_stream:
            step = Gather(chunk.span, plan.shards, self._manifest.span_folder(chunk.span))
        return Part(f"{self.view.name}, reading {chunk.span}", max(chunk.rows, 1), step)

    def _check(self, plan: Plan) -> None:
        """Step 4."""
        entries = {entry.span: entry for entry in self._manifest.entries(LookedEntry)}
        before = [_looked(plan.before, entries)] if plan.before is not None and plan.before.span in entries else []
        looked = [_looked(chunk, entries) for chunk in plan.chunks if chunk.is_empty or chunk.span in entries]
        self._run.before, self._run.looked = before, looked
        written = {chunk.span for chunk in (plan.chunks if plan.is_stream else plan.to_write)}
        broken = [b for b in breaches(self._limits, [*before, *looked]) if b.span in written]
        self._run.quality = [str(breach) for breach in broken]
        if broken and not self._settings.ignores_quality:
            told = "\n  ".join(self._run.quality[:10])
            more = f"\n  and {len(broken) - 10} more" if len(broken) > 10 else ""
            raise QualityError(
                f"view {self.view.name!r}: the data breaks {len(broken)} limits of the view's tags, and nothing was "
                f"written:\n  {told}{more}\nMend the data or the limits, or write it all the same: --ignore-quality"
            )

    def _write_rows(self, plan: Plan, work: Work, executor: Executor, lease: Lease, watch: Watch) -> None:
        """Step 5, of a batch view."""
        chunks = {self._rows_part(chunk): chunk for chunk in plan.to_write if not chunk.is_empty}

        def enter(chunk: Chunk, counts: Counts) -> None:
            mark = lease.acknowledge()
            self._manifest.put(RowsEntry(chunk.span.start_ms, chunk.span.end_ms, chunk.inputs, mark, counts))

        def written(part: Part, outcome: PartOutcome) -> None:
            assert isinstance(outcome, Counts)
            self._run.counts = self._run.counts.plus(outcome)
            enter(chunks[part], outcome)

        for chunk in plan.to_write:
            if chunk.is_empty:
                enter(chunk, Counts())
        watch.enter("writing", list(chunks), 0, written)
        executor.run(work, list(chunks), watch)

    def _rows_part(self, chunk: Chunk) -> Part:
        return Part(f"{self.view.name}, writing {chunk.span}", max(chunk.rows, 1), WriteRows(chunk.span))

    def _write_sides(self, plan: Plan, work: Work, executor: Executor, lease: Lease, watch: Watch) -> None:
        """Step 5, of a stream view."""
        assert isinstance(self.view, StreamView)
        spans = [chunk.span for chunk in plan.chunks if not chunk.is_empty]
        entries = {entry.span: entry for entry in self._manifest.entries(LookedEntry)}
        end_ms = self._batch_end_ms = end_of(self.view, plan.asked, [entries[span] for span in spans])
        folders = tuple(self._manifest.staged_folder(entries[span]) for span in spans)
        shards = plan.sides if plan.sides is not None else self._missing_sides(plan, end_ms)
        weight = max(plan.rows // plan.shards, 1)
        parts = {
            Part(f"{self.view.name}, writing shard {shard + 1} of {plan.shards}", weight, step): shard
            for shard, step in ((shard, WriteSide(shard, folders, end_ms)) for shard in shards)
        }

        def written(part: Part, outcome: PartOutcome) -> None:
            assert isinstance(outcome, Counts)
            self._run.counts = self._run.counts.plus(outcome)
            mark = lease.acknowledge()
            self._manifest.put(SideEntry(parts[part], plan.shards, end_ms, plan.inputs, mark, outcome))

        watch.enter("writing", list(parts), 0, written)
        executor.run(work, list(parts), watch)

    def _missing_sides(self, plan: Plan, end_ms: int) -> tuple[int, ...]:
        """The shards to write, when chunks had to be read to know where the batch side ends."""
        done = {entry.shard for entry in self._manifest.entries(SideEntry) if entry.batch_end_ms == end_ms}
        return tuple(shard for shard in range(plan.shards) if shard not in done)

    def _finish(self, plan: Plan, lease: Lease, began_s: float) -> None:
        """Step 6, but for the watermark."""
        if plan.is_stream:  # rows say which have no key, once; staged events no longer do
            run = self._run
            run.counts = run.counts.plus(Counts(skipped=run.seen.skipped))
        self._manifest.put(
            JobEntry(
                plan.asked.start_ms,
                plan.asked.end_ms,
                self._batch_end_ms,
                plan.inputs,
                lease.mark,
                self._run.counts,
                round(time.monotonic() - began_s, 3),
            )
        )
        sides, jobs = self._manifest.entries(SideEntry), self._manifest.entries(JobEntry)
        lease.ask()  # what follows removes files, which may be another job's by now
        self._manifest.forget(entry for entry in sides if entry.batch_end_ms != self._batch_end_ms)
        self._manifest.forget(sorted(jobs, key=lambda job: job.mark.number)[:-JOBS_KEPT])
        looked = sorted(self._manifest.entries(LookedEntry), key=lambda entry: entry.span)
        current = {chunk.span for chunk in plan.chunks}
        if plan.is_stream:
            self._manifest.forget(entry for entry in looked if entry.span not in current)
        else:
            self._manifest.forget([entry for entry in looked if entry.span not in current][:-LOOKED_KEPT])
        self._manifest.clean_staging()

    def _opened(self) -> Manifest:
        return Manifest(self._settings.state, self._settings.project, self.view.name, self._meaning)


def _looked(chunk: Chunk, entries: dict[Span, LookedEntry]) -> Looked:
    if chunk.is_empty:
        return Looked(chunk.span, 0, {}, chunk.is_whole)
    entry = entries[chunk.span]
    return Looked(chunk.span, entry.events, entry.columns, chunk.is_whole)


def _raise_if_taken_over(lease: Lease, error: Exception) -> None:
    """Raises LeaseLostError for an error that only says that another job has the view, and has cleaned up."""
    if isinstance(error, (LeaseLostError, StoppedError)):
        return
    try:
        lease.ask()
    except LeaseLostError as lost:
        raise lost from error


def _outcome(error: BaseException) -> Outcome:
    if isinstance(error, QualityError):
        return "quality"
    if isinstance(error, ViewBusyError):
        return "busy"
    return "stopped" if isinstance(error, (StoppedError, KeyboardInterrupt)) else "failed"


def _cause(error: BaseException) -> str:
    notes = getattr(error, "__notes__", [])
    return " ".join([reason_of(error), *(f"({note})" for note in notes)])
