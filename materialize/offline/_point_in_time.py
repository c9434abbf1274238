"""The values of one view for many entities, each as of its own time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast.data_source import DataSource

from materialize.definitions import EVENT_ID, BatchView, FeatureField, StreamView, View, identities_of
from materialize.events import Columns, columns_from_table
from materialize.kernel import values_as_of
from materialize.offline._errors import HistoryError
from materialize.offline._history import read_history
from materialize.offline._keys import Codes, Column, entity_codes
from materialize.offline._knowledge import Knowledge, values_as_known

Times = np.ndarray[Any, np.dtype[np.int64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

ARROW_TYPES = {
    "DOUBLE": pa.float64(),
    "FLOAT": pa.float32(),
    "INT64": pa.int64(),
    "INT32": pa.int32(),
    "BOOL": pa.bool_(),
    "STRING": pa.string(),
}
"""The Arrow type of a Feast value type; columns of other types stay as they are stored."""


@dataclass(frozen=True)
class ViewColumns:
    """One Arrow column of length q for each requested feature, null where there is no value."""

    names: tuple[str, ...]
    columns: tuple[pa.ChunkedArray, ...]


@dataclass(frozen=True)
class EventHistory:
    """Events as columns, and a number for each one's identity, uint64[n], if they have any: read once for all views of
    a source."""

    columns: Columns
    identities: np.ndarray[Any, np.dtype[np.uint64]] | None


def event_history(
    views: Sequence[StreamView], source: DataSource, repo_path: Path | None, query_times: Times, hashed: bool = False
) -> EventHistory:
    """The events that the views need for values as of these times, int64[q]; `hashed`: with identities that those of
    other events can be compared with. Raises HistoryError."""
    first_ms, last_ms = int(query_times.min()), int(query_times.max())
    table = read_history(source, repo_path, min(view.spec.tail_ms(first_ms) for view in views), last_ms + 1)
    columns = columns_from_table(table)
    return EventHistory(columns, identities_of(columns) if hashed and EVENT_ID in columns else _identities(table))


def _identities(table: pa.Table) -> np.ndarray[Any, np.dtype[np.uint64]] | None:
    if EVENT_ID not in table.column_names:
        return None  # a view's transformation may give them
    column = table.column(EVENT_ID)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    numbered = pa.chunked_array([column.combine_chunks()]).dictionary_encode(null_encoding="encode")
    return np.asarray(numbered.combine_chunks().indices.to_numpy()).astype(np.uint64)


def values_of_view(
    view: View,
    source: DataSource,
    repo_path: Path | None,
    features: Sequence[str],
    query_keys: Sequence[Column],
    query_times: Times,
    known_as_of: bool = False,
    history: EventHistory | None = None,
    knowledge: Knowledge | None = None,
) -> ViewColumns:
    """The features of a view for each queried entity as of each time (int64[q], milliseconds).

    query_keys: one column of length q for each join key of the view. known_as_of: leave out what was created after the
    as-of time. history: what `event_history` read for a stream view, and others (hashed, with knowledge); without, it
    is read here. knowledge: what each query knows besides, or does not. Raises HistoryError for history that cannot be
    read.
    """
    if not len(query_times):
        return ViewColumns(tuple(features), tuple(pa.chunked_array([[]], type=_type(view, name)) for name in features))
    if isinstance(view, StreamView):
        if known_as_of:
            raise HistoryError(
                f"view {view.name!r} holds windows, which are as of event time: ask for them without "
                "filter_by_created_timestamp"
            )
        history = history or event_history([view], source, repo_path, query_times, knowledge is not None)
        found = _as_known(view, source, history, query_keys, query_times, knowledge)
        return _stream_values(view, found, features, query_times)
    known_ms = query_times if known_as_of else None if knowledge is None else knowledge.known_ms
    return _batch_values(view, source, repo_path, features, query_keys, query_times, known_ms)


_Found = tuple[np.ndarray[Any, np.dtype[np.float64]], Mask, Times]
"""As `values_as_of` returns it: values, found, newest."""


def _as_known(
    view: StreamView,
    source: DataSource,
    history: EventHistory,
    query_keys: Sequence[Column],
    query_times: Times,
    knowledge: Knowledge | None,
) -> _Found:
    if knowledge is None:
        events = view.events(history.columns, history.identities)
        codes, asked = entity_codes(events.keys, query_keys)
        return values_as_of(view.spec, codes, events.block, asked, query_times)
    created_ms = history.columns[source.created_timestamp_column or source.timestamp_field]
    return values_as_known(view, history.columns, history.identities, created_ms, query_keys, query_times, knowledge)


def _stream_values(view: StreamView, as_of: _Found, features: Sequence[str], query_times: Times) -> ViewColumns:
    values, found, newest = as_of
    if view.ttl_ms:
        found &= query_times - newest <= view.ttl_ms
    places = {field.name: place for place, field in enumerate(view.fields)}
    columns = []
    for name in features:
        column = values[:, places[name]]
        null = ~found | np.isnan(column)
        numbers = np.where(null, 0, column) if _type(view, name) != pa.float64() else column
        columns.append(values_as_declared(_field(view, name), pa.chunked_array([pa.array(numbers, mask=null)])))
    return ViewColumns(tuple(features), tuple(columns))


def _batch_values(
    view: BatchView,
    source: DataSource,
    repo_path: Path | None,
    features: Sequence[str],
    query_keys: Sequence[Column],
    query_times: Times,
    known_ms: Times | None,
) -> ViewColumns:
    created_column = source.created_timestamp_column or None
    from_ms = int(query_times.min()) - view.ttl_ms if view.ttl_ms else None
    keys = [key.name for key in view.join_keys]
    used = [*keys, *features, source.timestamp_field, *([created_column] if created_column else [])]
    table = read_history(source, repo_path, from_ms, int(query_times.max()) + 1, list(dict.fromkeys(used)))
    history = columns_from_table(table.select(list(dict.fromkeys(used[: len(keys)]))))
    times = _milliseconds(table, source.timestamp_field)
    created = _milliseconds(table, created_column) if created_column else times
    codes, asked = entity_codes([history[key] for key in keys], query_keys)
    row = _newest_row(codes, times, created, asked, query_times, known_ms)
    age_ms = query_times - np.where(row >= 0, times[row] if len(times) else 0, 0)
    found = row >= 0
    if view.ttl_ms:
        found &= age_ms <= view.ttl_ms
    index = pa.array(np.where(found, row, 0), mask=~found)
    columns = []
    for name in features:
        column = table.column(name) if len(times) else pa.chunked_array([pa.nulls(1, _type(view, name))])
        columns.append(values_as_declared(_field(view, name), column.take(index)))
    return ViewColumns(tuple(features), tuple(columns))


def _newest_row(
    codes: Codes, times: Times, created: Times, asked: Codes, as_of: Times, known_ms: Times | None
) -> Times:
    """The position of the newest row of each queried entity at its time, −1 for none; ties go to the later created.

    known_ms: int64[q], rows that were created later are stepped over.
    """
    order = np.lexsort((created, times, codes))
    begins = np.searchsorted(codes[order], asked, "left")
    out = np.full(len(asked), -1, dtype=np.int64)
    if not len(order):
        return out
    first = int(times.min())
    span = int(max(times.max(), as_of.max())) - first + 2
    ranks = codes[order] * span + (times[order] - first)
    ends = np.searchsorted(ranks, asked * span + np.clip(as_of - first, -1, span - 2), "right")
    last = np.where((asked >= 0) & (ends > begins), ends - 1, -1)
    if known_ms is not None:
        last = _known(last, begins, created[order], known_ms)
    out[last >= 0] = order[last[last >= 0]]
    return out


def _known(last: Times, begins: Times, created: Times, known_ms: Times) -> Times:
    """Steps back from rows that were created after a time, as far as each entity's first row."""
    last = last.copy()
    late = np.flatnonzero(last >= 0)
    while len(late):
        late = late[created[last[late]] > known_ms[late]]
        last[late] -= 1
        gone = last[late] < begins[late]
        last[late[gone]] = -1
        late = late[~gone]
    return last


def _milliseconds(table: pa.Table, name: str) -> Times:
    return columns_from_table(table.select([name]))[name]


def values_as_declared(field: FeatureField, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A stored column in the type of its field, NaN as null. Raises HistoryError when it cannot be that."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    try:
        return column.cast(ARROW_TYPES.get(field.kind, column.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise HistoryError(
            f"feature {field.name!r} is {field.kind}, but its history holds {column.type}: {error}; "
            "change the field's type, or write the column in it"
        ) from error


def _field(view: View, name: str) -> FeatureField:
    return next(field for field in view.fields if field.name == name)


def _type(view: View, name: str) -> pa.DataType:
    return ARROW_TYPES.get(_field(view, name).kind, pa.null())
