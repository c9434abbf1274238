"""Reading the history behind a view: Parquet files, only the time span that is needed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from feast import FileSource
from feast.data_source import DataSource

from materialize.offline._errors import HistoryError


def read_history(
    source: DataSource,
    repo_path: Path | None,
    from_ms: int | None = None,
    until_ms: int | None = None,
    columns: list[str] | None = None,
) -> pa.Table:
    """The rows of a file source with from_ms ≤ event time < until_ms, and only `columns` of it where given.

    Columns are called as the source's field mapping has them.

    Raises HistoryError for a source that is no file source, a path that is missing or unreadable, or a timestamp
    without a zone.
    """
    path, dataset = _dataset(source, repo_path)
    stored_as = {called: stored for stored, called in source.field_mapping.items()}
    called = columns or [source.field_mapping.get(name, name) for name in dataset.schema.names]
    wanted = {name: stored_as.get(name, name) for name in (source.timestamp_field, *called)}
    missing = [name for name in wanted.values() if name not in dataset.schema.names]
    if missing:
        raise HistoryError(f"source {source.name!r}: {path} has no column {', '.join(missing)}")
    kind = dataset.schema.field(wanted[source.timestamp_field]).type
    if not pa.types.is_timestamp(kind) or kind.tz is None:
        raise HistoryError(
            f"source {source.name!r}: {source.timestamp_field!r} is {kind}; write it as timestamp[ms, UTC]"
        )
    return dataset.to_table(
        columns={name: ds.field(stored) for name, stored in wanted.items()},
        filter=_span(wanted[source.timestamp_field], kind, from_ms, until_ms),
    )


def history_end_ms(source: DataSource, repo_path: Path | None) -> int | None:
    """The newest event time in the history of a file source, milliseconds UTC; None when it is empty.

    Read from the files' statistics where they have them. Raises HistoryError as `read_history`.
    """
    _, dataset = _dataset(source, repo_path)
    mapping = {called: stored for stored, called in source.field_mapping.items()}
    field = mapping.get(source.timestamp_field, source.timestamp_field)
    newest = [_newest(fragment, field) for fragment in dataset.get_fragments()]
    return max((time_ms for time_ms in newest if time_ms is not None), default=None)


def _newest(fragment: ds.Fragment, field: str) -> int | None:
    groups = [group.statistics.get(field, {}).get("max") for group in fragment.row_groups if group.num_rows]
    if groups and all(isinstance(newest, datetime) for newest in groups):
        return max(_floor_ms(newest) for newest in groups)
    column = fragment.to_table(columns=[field]).column(field)
    newest = (
        pc.max(column.cast(pa.timestamp("ms", "UTC"), safe=False)).cast(pa.int64()).as_py() if len(column) else None
    )
    return None if newest is None else int(newest)


def _floor_ms(when: datetime) -> int:
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when
    return (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _dataset(source: DataSource, repo_path: Path | None) -> tuple[str, ds.Dataset]:
    if not isinstance(source, FileSource):
        raise HistoryError(f"source {source.name!r} is a {type(source).__name__}: history is read from a FileSource")
    path = FileSource.get_uri_for_file_path(repo_path, source.path)
    try:
        return path, ds.dataset(path, format="parquet", exclude_invalid_files=False)
    except (FileNotFoundError, OSError, pa.ArrowInvalid) as error:
        raise HistoryError(f"source {source.name!r}: cannot read {path}: {error}") from error


def _span(field: str, kind: pa.DataType, from_ms: int | None, until_ms: int | None) -> ds.Expression | None:
    def at(time_ms: int) -> pa.Scalar:
        return pa.scalar(time_ms, pa.timestamp("ms", "UTC")).cast(kind)

    parts = []
    if from_ms is not None:
        parts.append(ds.field(field) >= at(from_ms))
    if until_ms is not None:
        parts.append(ds.field(field) < at(until_ms))
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else parts[0] & parts[1]
