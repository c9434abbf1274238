"""Backfill: history into the batch side of the online rows, and the Feast ComputeEngine plug-in."""

from materialize.backfill._batch_side import BackfillResult, backfill_view
from materialize.backfill._errors import (
    BackfillError,
    ChunkLostError,
    ClusterError,
    LeaseLostError,
    QualityError,
    RowsLostError,
    SpanError,
    StoppedError,
    SupersededError,
    ViewBusyError,
)
from materialize.backfill._executors import Executor, Inline
from materialize.backfill._job import JobSettings, ViewJob
from materialize.backfill._newest import write_newest_rows
from materialize.backfill._plan import Plan
from materialize.backfill._report import JobStatus, ViewReport
from materialize.backfill._results import ChunkResult, GatherResult
from materialize.backfill._sides import batch_end_of, batch_span, gather_events, write_batch_sides
from materialize.backfill._spans import Span, moment
from materialize.backfill._staging import StagingError
from materialize.backfill._steps import step_ms
from materialize.whole_file import write_whole

__all__ = [
    "BackfillError",
    "BackfillResult",
    "ChunkLostError",
    "ChunkResult",
    "ClusterError",
    "Executor",
    "GatherResult",
    "Inline",
    "JobSettings",
    "JobStatus",
    "LeaseLostError",
    "Plan",
    "QualityError",
    "RowsLostError",
    "Span",
    "SpanError",
    "StagingError",
    "StoppedError",
    "SupersededError",
    "ViewBusyError",
    "ViewJob",
    "ViewReport",
    "backfill_view",
    "batch_end_of",
    "batch_span",
    "gather_events",
    "moment",
    "step_ms",
    "write_batch_sides",
    "write_newest_rows",
    "write_whole",
]
