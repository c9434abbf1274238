"""Backfill: history into the batch side of the online rows, and the Feast ComputeEngine plug-in."""

from materialize.backfill._batch_side import BackfillResult, backfill_view

__all__ = ["BackfillResult", "backfill_view"]
