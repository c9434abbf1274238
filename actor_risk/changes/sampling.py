"""A sample as sources: where the events and tables of a repository lie in it, and of the events only the newest.

A sample is a folder laid out like the data that the sources name, or one Parquet file with events of one topic, which
is known by its columns. A table that the sample lacks is read where its source says, events are not.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureView, FileSource
from feast.stream_feature_view import StreamFeatureView

from actor_risk.changes.topic_columns import topic_columns
from materialize.offline import history_end_ms, open_history

EVENTS_MAX = 100_000
"""So many events of each topic are looked at, the newest."""
FIRST_REACH_MS = 3_600_000
HALVINGS = 12
"""How exactly the time is found since when there are so many events: to one part in 4,096 of the span."""
PARTS_MAX = 3
"""So many names at the end of a source's path are looked for in the sample: `profiles/ip_profiles.parquet`."""


def in_sample(view: FeatureView, sample: Path) -> FileSource | None:
    """The history or the table of a view in the sample; None where there is none."""
    source = view.batch_source
    if not isinstance(source, FileSource):
        return None
    is_stream = isinstance(view, StreamFeatureView)
    path = (sample if is_stream and _is_of(sample, view) else None) if sample.is_file() else _below(sample, source.path)
    if path is None and not is_stream and "://" not in source.path and Path(source.path).exists():
        path = Path(source.path)
    return None if path is None else placed(source, path)


def placed(source: FileSource, path: Path) -> FileSource:
    """The same source at another path."""
    return FileSource(
        name=source.name,
        path=str(path),
        timestamp_field=source.timestamp_field,
        created_timestamp_column=source.created_timestamp_column,
        field_mapping=dict(source.field_mapping),
        tags=dict(source.tags),
    )


def newest_since(source: FileSource, events_max: int) -> int | None:
    """Since when there are about so many events, and not more; None if there are no more at all.

    Raises HistoryError for history that cannot be read.
    """
    last_ms = history_end_ms(source, None)
    if last_ms is None or open_history(source, None).count() <= events_max:
        return None
    few_ms, many_ms = 0, FIRST_REACH_MS
    while open_history(source, None, last_ms - many_ms).count() <= events_max:
        few_ms, many_ms = many_ms, 2 * many_ms
    for _ in range(HALVINGS):
        middle_ms = (few_ms + many_ms) // 2
        if open_history(source, None, last_ms - middle_ms).count() <= events_max:
            few_ms = middle_ms
        else:
            many_ms = middle_ms
    return last_ms - few_ms


def newest_events(source: FileSource, events_max: int) -> pa.Table:
    """The newest events, at most so many, by growing time, with every column. Raises HistoryError."""
    table = open_history(source, None, newest_since(source, events_max)).table()
    table = table.sort_by(source.timestamp_field)
    return table.slice(max(0, table.num_rows - events_max))


def written(source: FileSource, table: pa.Table, path: Path) -> FileSource:
    """A source of that table, with the columns called as they are there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="none")
    return FileSource(
        name=source.name,
        path=str(path),
        timestamp_field=source.timestamp_field,
        created_timestamp_column=source.created_timestamp_column,
    )


def _below(sample: Path, path: str) -> Path | None:
    parts = Path(path.partition("://")[2] or path).parts
    for count in range(min(PARTS_MAX, len(parts)), 0, -1):
        found = sample.joinpath(*parts[-count:])
        if found.exists():
            return found
    return None


def _is_of(sample: Path, view: StreamFeatureView) -> bool:
    """Whether the file has every column that the view's topic declares."""
    declared = topic_columns(view.stream_source)
    stored = {called: stored for stored, called in view.batch_source.field_mapping.items()}
    found = set(pq.read_schema(sample).names)
    return bool(declared) and all(stored.get(name, name) in found or name in found for name in declared)
