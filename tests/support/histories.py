"""History in Parquet and its backfill, of any events, into the rows of a test."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from feast import FileSource

from materialize.backfill import BackfillResult, backfill_view
from materialize.online import RowWriter, connect
from tests.support.workers import Work


def write_histories(directory: Path, tables: Mapping[str, pa.Table]) -> dict[str, FileSource]:
    """One file for each topic, as the source of its history."""
    sources = {}
    for topic, table in tables.items():
        path = directory / f"{topic}.parquet"
        pq.write_table(table, path)
        sources[topic] = FileSource(
            name=topic, path=str(path), timestamp_field="event_time", created_timestamp_column="created"
        )
    return sources


def backfill_all(work: Work, sources: Mapping[str, FileSource], end_ms: int) -> list[BackfillResult]:
    """The stream views from history up to `end_ms`, into the rows of the work's project."""
    with closing(connect(work.redis)) as client:
        return [
            backfill_view(view, sources[view.topic], work.project, None, RowWriter(client), 0, end_ms, lambda *_: None)
            for view in work.views
        ]
