"""Backfill: history into the batch side of the online rows, and the Feast ComputeEngine plug-in."""

from materialize.backfill._batch_side import BackfillResult, backfill_view
from materialize.backfill._newest import write_newest_rows
from materialize.backfill._results import ChunkResult, GatherResult
from materialize.backfill._sides import batch_end_of, batch_span, gather_events, write_batch_sides
from materialize.backfill._staging import StagingError

__all__ = [
    "BackfillResult",
    "ChunkResult",
    "GatherResult",
    "StagingError",
    "backfill_view",
    "batch_end_of",
    "batch_span",
    "gather_events",
    "write_batch_sides",
    "write_newest_rows",
]
