"""The files behind a view's history, from their footers alone: how many rows a span has, and whether they changed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from feast import FileSource
from feast.data_source import DataSource

from materialize.backfill._spans import Span
from materialize.offline import HistoryError


@dataclass(frozen=True)
class RowGroup:
    """Rows of a file that are read together. `span`: from the oldest to just after the newest; None: unknown."""

    rows: int
    span: Span | None

    def rows_in(self, span: Span) -> float:
        """How many of them are in the span, if they are spread evenly."""
        if self.span is None:
            return self.rows
        shared_ms = min(span.end_ms, self.span.end_ms) - max(span.start_ms, self.span.start_ms)
        return self.rows * max(shared_ms, 0) / self.span.length_ms


@dataclass(frozen=True)
class HistoryFile:
    """One Parquet file: `identity` changes when it is written anew."""

    path: str
    identity: str
    groups: tuple[RowGroup, ...]

    def is_read_for(self, span: Span) -> bool:
        """Whether it may have rows in the span."""
        return any(group.span is None or group.span.overlaps(span) for group in self.groups if group.rows)


@dataclass(frozen=True)
class Inventory:
    """All files of a source."""

    files: tuple[HistoryFile, ...]

    def rows_in(self, span: Span) -> int:
        """About how many rows there are in the span."""
        return round(sum(group.rows_in(span) for file in self.files for group in file.groups))

    def has(self, span: Span) -> bool:
        """Whether there may be rows in the span."""
        return any(file.is_read_for(span) for file in self.files)

    def digest(self, span: Span) -> str:
        """Changes when a file that may have rows in the span appears, goes away, or is written anew."""
        read = sorted(f"{file.path} {file.identity}" for file in self.files if file.is_read_for(span))
        return hashlib.sha256("\n".join(read).encode()).hexdigest()[:16]


def take_inventory(source: DataSource, repo_path: Path | None) -> Inventory:
    """The files of a source, by their footers.

    Raises HistoryError for a source that is no file source, for no file, and for one that is missing or no Parquet.
    """
    if not isinstance(source, FileSource):
        raise HistoryError(f"source {source.name!r} is a {type(source).__name__}: history is read from a FileSource")
    path = FileSource.get_uri_for_file_path(repo_path, source.path)
    try:
        dataset = ds.dataset(path, format="parquet", exclude_invalid_files=False)
        known = {info.path: info for info in dataset.filesystem.get_file_info(dataset.files)}
        found = [_file(fragment, known[fragment.path], source) for fragment in dataset.get_fragments()]
    except (OSError, pa.ArrowInvalid) as error:
        raise HistoryError(f"source {source.name!r}: cannot read {path}: {error}") from error
    if not found:
        raise HistoryError(f"source {source.name!r}: no Parquet file in {path}: put history there, or mend the path")
    return Inventory(tuple(found))


def _file(fragment: Any, info: Any, source: FileSource) -> HistoryFile:
    fragment.ensure_complete_metadata()
    metadata = fragment.metadata
    called = {called: stored for stored, called in source.field_mapping.items()}
    time = called.get(source.timestamp_field, source.timestamp_field)
    place = next((n for n in range(metadata.num_columns) if metadata.schema.column(n).path == time), None)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return HistoryFile(
        fragment.path,
        f"{info.size} {info.mtime_ns}",
        tuple(RowGroup(group.num_rows, None if place is None else _span(group.column(place))) for group in groups),
    )


def _span(column: Any) -> Span | None:
    stored = column.statistics
    if stored is None or not stored.has_min_max or not isinstance(stored.min, datetime):
        return None
    return Span(int(stored.min.timestamp() * 1000), int(stored.max.timestamp() * 1000) + 1)
