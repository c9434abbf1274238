"""History into online rows: the newest row of each entity for a batch view, the batch side for a stream view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast import ValueType
from feast.data_source import DataSource
from feast.type_map import python_values_to_proto_values

from materialize.definitions import BatchView, FeatureField, StreamView, View
from materialize.events import columns_from_table
from materialize.kernel import KEEP_SLACK_MS, EventBlock, replace_batch_side
from materialize.offline import ARROW_TYPES, entity_codes, read_history, values_as_declared
from materialize.online import (
    NUMERIC_KINDS,
    FieldValue,
    KeyEncoder,
    RowWriter,
    StreamRow,
    encode_batch_columns,
    value_from_proto,
)

ROWS_AT_ONCE = 2_000
"""Rows written between two reports of progress."""

Progress = Callable[[int, int], None]
"""Told (rows written so far, rows in all)."""


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
    later would be wrong. The batch end is `end_ms` rounded down to a tile of every hop, or the end of the last such
    tile that history has an event in, if that is earlier: what history does not have yet stays the stream's.
    Raises HistoryError for history that cannot be read, and what the writer raises.
    """
    encoder = KeyEncoder(project, view.name, view.join_keys)
    if isinstance(view, StreamView):
        return _stream_side(view, source, encoder, repo_path, writer, end_ms, progress)
    return _newest_rows(view, source, encoder, repo_path, writer, start_ms, end_ms, progress)


def _stream_side(
    view: StreamView,
    source: DataSource,
    encoder: KeyEncoder,
    repo_path: Path | None,
    writer: RowWriter,
    end_ms: int,
    progress: Progress,
) -> BackfillResult:
    step_ms = view.spec.batch_step_ms
    batch_end_ms = end_ms // step_ms * step_ms
    table = read_history(source, repo_path, batch_end_ms - view.spec.reach_ms - KEEP_SLACK_MS, batch_end_ms)
    columns = columns_from_table(table)
    if table.num_rows:
        batch_end_ms = (int(columns[source.timestamp_field].max()) // step_ms + 1) * step_ms
    events = view.events(columns)
    rows = _entities(events.keys)
    for begin in range(0, len(rows), ROWS_AT_ONCE):
        part = rows[begin : begin + ROWS_AT_ONCE]
        changes = {
            encoder.key([column[index[0]] for column in events.keys]): _replacing(
                view, events.block.take(index), batch_end_ms
            )
            for index in part
        }
        writer.update_stream_rows(view, changes)
        progress(begin + len(part), len(rows))
    return BackfillResult(view.name, table.num_rows, len(rows), events.skipped, batch_end_ms)


def _replacing(view: StreamView, history: EventBlock, batch_end_ms: int) -> Callable[[StreamRow], StreamRow | None]:
    def change(stored: StreamRow) -> StreamRow | None:
        if stored.state.batch_end_ms > batch_end_ms:
            return None
        return replace(stored, state=replace_batch_side(view.spec, stored.state, history, batch_end_ms))

    return change


def _entities(keys: Sequence[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    """The positions of each entity's events."""
    if not len(keys[0]):
        return []
    codes, _ = entity_codes(keys, keys)
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)


def _newest_rows(
    view: BatchView,
    source: DataSource,
    encoder: KeyEncoder,
    repo_path: Path | None,
    writer: RowWriter,
    start_ms: int,
    end_ms: int,
    progress: Progress,
) -> BackfillResult:
    keys = [key.name for key in view.join_keys]
    created = source.created_timestamp_column or None
    used = [*keys, *(field.name for field in view.fields), source.timestamp_field, *([created] if created else [])]
    found = read_history(source, repo_path, start_ms, end_ms, list(dict.fromkeys(used)))
    table = found.filter(reduce(pc.and_, (pc.is_valid(found.column(key)) for key in keys))) if keys else found
    columns = columns_from_table(table.select([*keys, source.timestamp_field, *([created] if created else [])]))
    times = columns[source.timestamp_field]
    made = columns[created] if created else np.zeros_like(times)
    newest = _last_of_each([columns[key] for key in keys], times, made)
    table = table.take(pa.array(newest))
    stored = [_stored(field, table.column(field.name)) for field in view.fields]
    entities = [table.column(key).to_pylist() for key in keys]
    row_keys = encoder.keys(zip(*entities, strict=True)) if keys else [encoder.key(())]
    for begin in range(0, len(newest), ROWS_AT_ONCE):
        part = slice(begin, begin + ROWS_AT_ONCE)
        columns_of_part = [column[part] for column in stored]
        rows = encode_batch_columns(view, columns_of_part, times[newest[part]], made[newest[part]])
        writer.write_sealed_rows(view, row_keys[part], rows)
        progress(begin + len(rows), len(newest))
    return BackfillResult(view.name, found.num_rows, len(newest), found.num_rows - len(times), None)


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
    if not len(times):
        return np.empty(0, np.int64)
    codes, _ = entity_codes(keys, keys)
    order = np.lexsort((created, times, codes))
    last = np.append(np.flatnonzero(np.diff(codes[order])), len(order) - 1)
    positions: np.ndarray[Any, np.dtype[np.int64]] = order[last]
    return positions
