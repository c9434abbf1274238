"""A whole backfill in one process: what the parts do for chunks and shards, for a history at once."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from feast.data_source import DataSource

from materialize.backfill._newest import write_newest_rows
from materialize.backfill._sides import batch_end_of, batch_span, gather_events, write_batch_sides
from materialize.definitions import StreamView, View
from materialize.online import Progress, RowWriter


@dataclass(frozen=True)
class BackfillResult:
    """What a backfill did. `batch_end_ms` is where the batch side ends, for a stream view."""

    view: str
    events: int
    rows: int
    skipped: int
    batch_end_ms: int | None


def backfill_view(
    view: View,
    source: DataSource,
    project: str,
    repo_path: Path | None,
    writer: RowWriter,
    start_ms: int,
    end_ms: int,
    progress: Progress,
) -> BackfillResult:
    """Write the online rows of a view from history up to `end_ms` (exclusive). Doing it again changes nothing.

    A batch view takes each entity's newest row from `start_ms` on; rows without a key are skipped. A stream view takes
    all that its windows reach back from the batch end; `start_ms` says nothing there, since a batch side that begins
    later would be wrong. Raises HistoryError for history that cannot be read, and what the writer raises.
    """
    if not isinstance(view, StreamView):
        done = write_newest_rows(view, source, repo_path, project, writer, start_ms, end_ms, progress)
        return BackfillResult(view.name, done.events, done.verified, done.skipped, None)
    with tempfile.TemporaryDirectory() as staging:
        folder = Path(staging) / "all"
        gathered = gather_events(view, source, repo_path, *batch_span(view, end_ms), 1, folder)
        batch_end_ms = batch_end_of(view, end_ms, gathered.newest_ms)
        done = write_batch_sides(view, project, [folder], 0, batch_end_ms, writer, progress)
    return BackfillResult(view.name, gathered.events, done.verified, gathered.skipped, batch_end_ms)
