"""The history behind a view: Parquet files here or in an object store, and of them only the span and the columns that
are needed.

A source is one file or a folder, hive-partitioned or not. Of each file the footer is read; row groups whose statistics
lie outside of the span are not. Files of partitions outside of the span are not opened at all if the source says which
partition column holds the events' date: `tags={"event_date_partition": "date"}`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
from feast import FileSource
from feast.data_format import ParquetFormat
from feast.data_source import DataSource

from materialize.offline._errors import HistoryError

EVENT_DATE_PARTITION = "event_date_partition"
"""The tag of a source that names the hive partition column which holds each event's date in UTC, as 2025-11-20."""

BATCH_ROWS = 1 << 18
BATCHES_AHEAD = 4
FILES_AHEAD = 2
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_DAY_MS = 86_400_000


@dataclass(frozen=True)
class History:
    """The files of one source within a span of event time. `names` are the columns there are, as the source's field
    mapping calls them."""

    source: DataSource
    path: str
    names: tuple[str, ...]
    files: ds.Dataset
    stored_as: dict[str, str]
    _span: ds.Expression | None

    def count(self) -> int:
        """How many rows there are. Reads no more than the times of row groups that lie partly in the span."""
        files, _ = self._prepared(())
        with _told(self.source, self.path):
            return int(files.count_rows(filter=self._span))

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows, with the event time first. Raises HistoryError, for a column that a file lacks, too."""
        files, wanted = self._prepared(self.names if columns is None else columns)
        with _told(self.source, self.path):
            return files.to_table(columns=wanted, filter=self._span)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows, at most BATCH_ROWS at a time, with a few batches read ahead. Raises as `table` does."""
        files, wanted = self._prepared(columns)
        with _told(self.source, self.path):
            yield from files.to_batches(
                columns=wanted,
                filter=self._span,
                batch_size=BATCH_ROWS,
                batch_readahead=BATCHES_AHEAD,
                fragment_readahead=FILES_AHEAD,
            )

    def _prepared(self, columns: Sequence[str]) -> tuple[ds.Dataset, dict[str, ds.Expression]]:
        """The files of the span's partitions in one schema, and the columns as the scan wants them."""
        stored = {name: self.stored_as.get(name, name) for name in (self.source.timestamp_field, *columns)}
        missing = [name for name in stored.values() if name not in self.files.schema.names]
        if missing:
            raise HistoryError(f"source {self.source.name!r}: {self.path} has no column {', '.join(missing)}")
        with _told(self.source, self.path):
            fragments = list(self.files.get_fragments(filter=self._span))
        schema = _common_schema(self.source, self.files.schema, fragments, list(dict.fromkeys(stored.values())))
        files = ds.FileSystemDataset(fragments, schema, self.files.format, self.files.filesystem)
        return files, {name: ds.field(column) for name, column in stored.items()}


def open_history(
    source: DataSource, repo_path: Path | None, from_ms: int | None = None, until_ms: int | None = None
) -> History:
    """The rows of a file source with from_ms ≤ event time < until_ms.

    Raises HistoryError for a source that is no Parquet file source, a path that is missing or unreadable, or a
    timestamp without a zone.
    """
    if not isinstance(source, FileSource):
        raise HistoryError(f"source {source.name!r} is a {type(source).__name__}: history is read from a FileSource")
    if source.file_format is not None and not isinstance(source.file_format, ParquetFormat):
        raise HistoryError(
            f"source {source.name!r} is {type(source.file_format).__name__}: history is read from Parquet"
        )
    where = FileSource.get_uri_for_file_path(repo_path, source.path)
    with _told(source, where):
        filesystem, path = file_place(where, source.s3_endpoint_override)
        files = ds.dataset(
            path, filesystem=filesystem, format="parquet", partitioning="hive", exclude_invalid_files=False
        )
    if not files.files:
        raise HistoryError(f"source {source.name!r}: cannot read {where}: there is no file in it")
    stored_as = {called: stored for stored, called in source.field_mapping.items()}
    time_column = stored_as.get(source.timestamp_field, source.timestamp_field)
    if time_column not in files.schema.names:
        raise HistoryError(f"source {source.name!r}: {where} has no column {time_column}")
    names = tuple(source.field_mapping.get(name, name) for name in files.schema.names)
    kind = _zoned(source, files.files[0], files.schema.field(time_column))
    parts = [*_time_span(time_column, kind, from_ms, until_ms), *_dates(source, files, from_ms, until_ms)]
    return History(source, where, names, files, stored_as, reduce(lambda a, b: a & b, parts) if parts else None)


def read_history(
    source: DataSource,
    repo_path: Path | None,
    from_ms: int | None = None,
    until_ms: int | None = None,
    columns: list[str] | None = None,
) -> pa.Table:
    """The rows of a file source with from_ms ≤ event time < until_ms, and only `columns` of it where given.

    Columns are called as the source's field mapping has them; the event time is always there, and first.

    Raises HistoryError as `open_history` and `History.table` do.
    """
    return open_history(source, repo_path, from_ms, until_ms).table(columns)


def history_end_ms(source: DataSource, repo_path: Path | None) -> int | None:
    """The newest event time in the history of a file source, milliseconds UTC; None when it is empty.

    Read from the files' statistics where they have them. Raises HistoryError as `read_history`.
    """
    history = open_history(source, repo_path)
    field = history.stored_as.get(source.timestamp_field, source.timestamp_field)
    newest = [_newest(fragment, field) for fragment in history.files.get_fragments()]
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


def file_place(where: str, s3_endpoint: str = "") -> tuple[pafs.FileSystem, str]:
    """The pyarrow file system of a path or an address (`s3://`, `gs://`, …), and the path within it.

    Credentials and regions are those that pyarrow finds in the environment. s3_endpoint: `host:port` or a URL of a
    server that speaks the S3 protocol. Raises what pyarrow does.
    """
    if where.startswith("s3://") and s3_endpoint:
        scheme, _, address = s3_endpoint.rpartition("://")
        return pafs.S3FileSystem(endpoint_override=address, scheme=scheme or "https"), where.removeprefix("s3://")
    if "://" in where:
        filesystem, path = pafs.FileSystem.from_uri(where)
        return filesystem, path
    return pafs.LocalFileSystem(), where


class _told:  # noqa: N801 - reads as a word of the with statement
    """Turns what pyarrow raises into a HistoryError that names source and path."""

    def __init__(self, source: DataSource, path: str) -> None:
        self._source, self._path = source, path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if isinstance(error, (OSError, pa.ArrowException)):
            raise HistoryError(f"source {self._source.name!r}: cannot read {self._path}: {error}") from error


def _common_schema(source: DataSource, declared: pa.Schema, files: list[Any], columns: list[str]) -> pa.Schema:
    """The schema of the files, where a column's types differ the one that holds all of them.

    Raises HistoryError for a file that lacks a column, or has it in another kind of type: such files agree on a name
    and not on what it means.
    """
    common: dict[str, pa.Field] = {}
    for file in files:
        partitions = ds.get_partition_keys(file.partition_expression)
        with _told(source, file.path):
            schema = file.physical_schema
        for name in columns:
            if name in partitions:
                continue
            if name not in schema.names:
                raise HistoryError(
                    f"source {source.name!r}: {file.path} has no column {name}, which other files of it have: "
                    "write the file anew with it"
                )
            field = schema.field(name)
            if pa.types.is_timestamp(field.type):
                _zoned(source, file.path, field)
            common[name] = _joined(source, file.path, common.get(name, field), field)
    return pa.schema([common.get(field.name, field) for field in declared])


def _joined(source: DataSource, path: str, one: pa.Field, other: pa.Field) -> pa.Field:
    if one.type.equals(other.type):
        return one
    if any(all(_is_of(kind, field.type) for field in (one, other)) for kind in _KINDS):
        both = [pa.schema([pa.field(field.name, field.type)]) for field in (one, other)]
        return pa.unify_schemas(both, promote_options="permissive").field(0)
    raise HistoryError(
        f"source {source.name!r}: {path} has {other.type} in {other.name!r}, other files of it {one.type}: "
        "write them in one type"
    )


_KINDS = (
    (pa.types.is_integer, pa.types.is_floating),
    (pa.types.is_string, pa.types.is_large_string),
    (pa.types.is_timestamp,),
    (pa.types.is_binary, pa.types.is_large_binary),
)


def _is_of(kind: tuple[Any, ...], held: pa.DataType) -> bool:
    return any(test(held) for test in kind)


def _zoned(source: DataSource, path: str, field: pa.Field) -> pa.DataType:
    if not pa.types.is_timestamp(field.type) or field.type.tz is None:
        raise HistoryError(
            f"source {source.name!r}: {field.name!r} is {field.type} in {path}; write it as timestamp[ms, UTC]"
        )
    return field.type


def _time_span(field: str, kind: pa.DataType, from_ms: int | None, until_ms: int | None) -> list[ds.Expression]:
    """Instants are whole milliseconds, and a stored time belongs to the millisecond in which it lies."""

    def at(time_ms: int) -> pa.Scalar:
        return pa.scalar(-(-time_ms * _PER_SECOND[kind.unit] // 1_000), kind)

    parts = []
    if from_ms is not None:
        parts.append(ds.field(field) >= at(from_ms))
    if until_ms is not None:
        parts.append(ds.field(field) < at(until_ms))
    return parts


def _dates(source: DataSource, files: ds.Dataset, from_ms: int | None, until_ms: int | None) -> list[ds.Expression]:
    """The partitions of the span's days, where the source names the column that holds them."""
    name = source.tags.get(EVENT_DATE_PARTITION)
    if name is None:
        return []
    first = next(files.get_fragments(), None)
    if first is None or not isinstance(ds.get_partition_keys(first.partition_expression).get(name), str):
        raise HistoryError(
            f"source {source.name!r}: its tag {EVENT_DATE_PARTITION!r} names {name!r}, and its folders are not called "
            f"{name}=2025-11-20 and so on: take the tag away, or partition by such dates"
        )
    parts = []
    if from_ms is not None:
        parts.append(ds.field(name) >= _day(from_ms))
    if until_ms is not None:
        parts.append(ds.field(name) <= _day(until_ms - 1))
    return parts


def _day(time_ms: int) -> str:
    day: str = str(pa.scalar(time_ms // _DAY_MS, pa.date32()).as_py())
    return day
