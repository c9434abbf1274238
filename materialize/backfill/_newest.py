"""The newest row of each entity, for a batch view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast import ValueType
from feast.data_source import DataSource
from feast.type_map import python_values_to_proto_values

from materialize.backfill._entities import group_entities
from materialize.backfill._results import ChunkResult
from materialize.definitions import BatchView, FeatureField
from materialize.events import columns_from_table
from materialize.offline import ARROW_TYPES, read_history, values_as_declared
from materialize.online import (
    NUMERIC_KINDS,
    FieldValue,
    KeyEncoder,
    Progress,
    RowWriter,
    encode_batch_columns,
    value_from_proto,
)

ROWS_AT_ONCE = 2_000
"""Rows written between two reports of progress."""


def write_newest_rows(
    view: BatchView,
    source: DataSource,
    repo_path: Path | None,
    project: str,
    writer: RowWriter,
    start_ms: int,
    end_ms: int,
    progress: Progress,
) -> ChunkResult:
    """Write each entity's newest row with start_ms ≤ event time < end_ms, unless a newer one is stored.

    Chunks of one history may be written in any order, at the same time and again: the server keeps the newest row of
    all. Rows without a key are skipped. Raises HistoryError for history that cannot be read, and what the writer
    raises.
    """
    encoder = KeyEncoder(project, view.name, view.join_keys)
    keys = [key.name for key in view.join_keys]
    created = source.created_timestamp_column or None
    used = [*keys, *(field.name for field in view.fields), source.timestamp_field, *([created] if created else [])]
    found = read_history(source, repo_path, start_ms, end_ms, list(dict.fromkeys(used)))
    table = _with_keys(found, keys)
    columns = columns_from_table(table.select([*keys, source.timestamp_field, *([created] if created else [])]))
    times = columns[source.timestamp_field]
    made = columns[created] if created else np.zeros_like(times)
    newest = _last_of_each([columns[key] for key in keys], times, made)
    if len(newest) < len(times):
        table = table.take(pa.array(newest))
    stored = [_stored(field, table.column(field.name)) for field in view.fields]
    row_keys = _row_keys(encoder, [table.column(key) for key in keys])
    before = replace(writer.counts)
    for begin in range(0, len(newest), ROWS_AT_ONCE):
        part = slice(begin, begin + ROWS_AT_ONCE)
        columns_of_part = [column[part] for column in stored]
        rows = encode_batch_columns(view, columns_of_part, times[newest[part]], made[newest[part]])
        writer.write_sealed_rows(view, row_keys[part], rows)
        progress(begin + len(rows), len(newest))
    written, sent = writer.counts.written - before.written, writer.counts.sent_bytes - before.sent_bytes
    return ChunkResult(found.num_rows, written, found.num_rows - len(times), len(newest), sent)


def _with_keys(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    """The rows none of whose keys is null."""
    nullable = [table.column(key) for key in keys if table.column(key).null_count]
    return table.filter(reduce(pc.and_, map(pc.is_valid, nullable))) if nullable else table


def _stored(field: FeatureField, column: pa.ChunkedArray) -> pa.Array | list[FieldValue]:
    """A column's values as rows hold them; what is no scalar becomes Feast's message by Feast's own rules."""
    declared = values_as_declared(field, column)
    if field.kind in NUMERIC_KINDS:
        return declared.combine_chunks() if isinstance(declared, pa.ChunkedArray) else declared
    values: list[FieldValue] = declared.to_pylist()
    if field.kind in ARROW_TYPES:
        return values
    protos = python_values_to_proto_values(values, ValueType[field.kind])
    return [value_from_proto(field, proto) for proto in protos]


def _last_of_each(
    keys: Sequence[np.ndarray[Any, Any]], times: np.ndarray[Any, Any], created: np.ndarray[Any, Any]
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The position of each entity's newest row; of several of one time, that created last."""
    if not len(times):
        return np.empty(0, np.int64)
    codes = group_entities(keys)[0] if keys else np.zeros(len(times), np.int64)
    order = np.lexsort((created, times, codes))
    last = np.append(np.flatnonzero(np.diff(codes[order])), len(order) - 1)
    positions: np.ndarray[Any, np.dtype[np.int64]] = np.sort(order[last])
    return positions


def _row_keys(encoder: KeyEncoder, columns: Sequence[pa.ChunkedArray]) -> list[bytes]:
    """The Redis key of each row; a view without join keys has the one row."""
    if not columns:
        return [encoder.key(())]
    entities = encoder.entities_of_columns([column.to_numpy(zero_copy_only=False) for column in columns])
    return [encoder.prefix + entity for entity in entities.to_pylist()]
