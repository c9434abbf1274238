"""Reading the history behind a view: Parquet files, only the time span that is needed."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
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
    if not isinstance(source, FileSource):
        raise HistoryError(f"source {source.name!r} is a {type(source).__name__}: history is read from a FileSource")
    path = FileSource.get_uri_for_file_path(repo_path, source.path)
    try:
        dataset = ds.dataset(path, format="parquet", exclude_invalid_files=False)
    except (FileNotFoundError, OSError, pa.ArrowInvalid) as error:
        raise HistoryError(f"source {source.name!r}: cannot read {path}: {error}") from error
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
